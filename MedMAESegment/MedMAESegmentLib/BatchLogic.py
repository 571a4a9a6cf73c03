"""Segmenting many images: those of the scene, or those of a folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from medmae.run_folder import RunFolder
from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.BatchCase import BatchCase
from MedMAESegmentLib.BatchJob import BatchJob
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FolderBatchJob import FolderBatchJob
from MedMAESegmentLib.FollowedJob import FollowedJob, ProgressCallback
from MedMAESegmentLib.SegmentOptions import SegmentOptions
from MedMAESegmentLib.Suitability import refuseUnusable, usableModel


class BatchLogic:
    """Part of `SegmentLogic`, which has `segment` and follows the jobs."""

    engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here

    def segmentAll(self, images: Sequence[slicer.vtkMRMLVolumeNode] | str | Path, model: str | Path,
                   outputFolder: str | Path | None = None, *, device: str = "auto",
                   progressCallback: ProgressCallback | None = None, waitForCompletion: bool = True,
                   **options: Any) -> list[BatchCase] | FollowedJob:
        """Segment many images; one that fails does not keep the others from being done.

        What is finished already is not done again, so that the same call goes on with a batch that was ended.

        :param images: volumes of the scene, or a folder of image files or DICOM series.
        :param outputFolder: where results are saved as .seg.nrrd; of volumes, None: nowhere, they are in the scene
          anyway; of a folder, None: a folder "MedMAE MODEL" in it.
        :param options: precision, overlap, mirror, largestComponent, uncertainty, as for `segment`.
        :returns: a `BatchCase` for each image, with its state and result; with ``waitForCompletion=False`` the job,
          which has `cases`.
        :raises ValueError: there is nothing to segment.
        :raises RunFailed: no case could be done.
        """
        if isinstance(images, (str, Path)):
            job: FollowedJob = self._folderBatch(Path(images), model, outputFolder, SegmentOptions(device, **options))
        else:
            job = self._sceneBatch(list(images), model, outputFolder, {"device": device, **options})
        if progressCallback is not None:
            job.progressed.connect(progressCallback)
        return self._followed(job, waitForCompletion)  # type: ignore[attr-defined]

    def _sceneBatch(self, volumeNodes: list[slicer.vtkMRMLVolumeNode], model: str | Path,
                    outputFolder: str | Path | None, options: dict[str, Any]) -> BatchJob:
        refuseUnusable(volumeNodes, None)
        _folder, info = usableModel(model, "segmentation", volumeNodes[:1])
        return BatchJob(
            volumeNodes, lambda node: self.segment(node, model, waitForCompletion=False, **options),  # type: ignore[attr-defined]
            info.weights_sha256, Path(outputFolder) if outputFolder is not None else None)

    def _folderBatch(self, folder: Path, model: str | Path, outputFolder: str | Path | None,
                     options: SegmentOptions) -> FolderBatchJob:
        from medmae.volumes import find_images

        modelFolder, info = usableModel(model, "segmentation", None)
        out = Path(outputFolder) if outputFolder is not None else folder / f"MedMAE {info.name}"
        found = inBackground(lambda: find_images([str(folder)]))
        # As the engine is told them: results are called as the images are within their folder.
        images = [image.path.relative_to(folder) for image in found if out not in image.path.parents]
        if not images:
            raise ValueError(f"There are no images in {folder}. Choose another folder.")
        if self.engineCommand is None:
            Dependencies.ensureInstalled()
        temporary = newTemporaryFolder()
        try:
            run = RunFolder.create(temporary / "run", "segment", {**options.settings(), "format": "seg.nrrd"}, {
                "model": str(modelFolder), "images": [str(image) for image in images], "out": str(out.absolute()),
                "resume": True})
            process = ChildProcess(run.path, command=self.engineCommand, workingFolder=folder)
            job = FolderBatchJob(run, process, images)
            process.start()
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return job
