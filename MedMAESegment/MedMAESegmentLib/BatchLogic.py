"""Segmenting many images: those of the scene, or those of a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer

from medmae.jobs.targets import get_target
from medmae.run_folder import RunFolder
from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.BatchCase import BatchCase
from MedMAESegmentLib.BatchJob import BatchJob
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FolderBatchJob import FolderBatchJob
from MedMAESegmentLib.FolderListing import FORMAT, FolderListing, defaultOutput, listFolder, refuseUnwritable
from MedMAESegmentLib.FollowedJob import FollowedJob, ProgressCallback
from MedMAESegmentLib.RemoteFolderBatchJob import RemoteFolderBatchJob
from MedMAESegmentLib.SegmentOptions import SegmentOptions
from MedMAESegmentLib.Suitability import refuseManyChannels, refuseUnusable, usableModel
from MedMAESegmentLib.Translation import tr as _


class BatchLogic:
    """Part of `SegmentLogic`, which has `segment` and follows the jobs."""

    engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here

    def segmentAll(self, images: Sequence[slicer.vtkMRMLVolumeNode] | str | Path, model: str | Path,
                   outputFolder: str | Path | None = None, *, device: str = "auto", target: str | None = None,
                   again: bool = False, progressCallback: ProgressCallback | None = None,
                   waitForCompletion: bool = True, **options: Any) -> list[BatchCase] | FollowedJob:
        """Segment many images; one that fails does not keep the others from being done.

        What is finished already is not done again, so that the same call goes on with a batch that was ended.

        :param images: volumes of the scene, or a folder of image files or DICOM series.
        :param outputFolder: where results are saved as .seg.nrrd; of volumes, None: nowhere, they are in the scene
          anyway; of a folder, None: a folder "MedMAE MODEL" in it.
        :param target: compute on this target of MedMAE instead of here: volumes in a job each, a folder in one job,
          whose results are fetched at its end.
        :param again: also do what is finished; results in the scene are kept, those of a folder replaced.
        :param options: precision, overlap, mirror, largestComponent, uncertainty, as for `segment`; of volumes also
          smoothing.
        :returns: a `BatchCase` for each image, with its state and result; with ``waitForCompletion=False`` the job,
          which has `cases`.
        :raises ValueError: there is nothing to segment, or the results cannot be written there.
        :raises RunFailed: no case could be done, or the computation broke off before it had come to all.
        """
        if isinstance(images, (str, Path)):
            listing = inBackground(self.folderLister(images, model, outputFolder, **options))
            job: FollowedJob = self.folderBatch(listing, model, device=device, target=target, again=again, **options)
        else:
            job = self.sceneBatch(images, model, outputFolder, again=again, device=device, target=target, **options)
        if progressCallback is not None:
            job.progressed.connect(progressCallback)
        return job.wait() if waitForCompletion else job

    def sceneBatch(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], model: str | Path,
                   outputFolder: str | Path | None = None, *, again: bool = False, **options: Any) -> BatchJob:
        """Begin what `segmentAll` does for volumes of the scene."""
        nodes, out = list(volumeNodes), Path(outputFolder) if outputFolder is not None else None
        refuseUnusable(nodes, None)
        _folder, info = usableModel(model, "segmentation", nodes[:1])
        if out is not None:
            refuseUnwritable(out)
        if options.get("target") is None and self.worker.command is None:  # type: ignore[attr-defined]
            Dependencies.ensureInstalled()  # asked once, not for each volume

        def start(node: slicer.vtkMRMLVolumeNode) -> FollowedJob:
            return self.segment(node, model, waitForCompletion=False, **options)  # type: ignore[attr-defined]

        return self._followed(BatchJob(nodes, start, info.weights_sha256, out, again), False)  # type: ignore[attr-defined]

    def folderLister(self, folder: str | Path, model: str | Path, outputFolder: str | Path | None = None,
                     **options: Any) -> Callable[[], FolderListing]:
        """What looks for the images of a folder when it is called: in a thread, as it takes as long as the disk.

        :raises ValueError, medmae.errors.BadInput: the model or an option cannot be used.
        """
        _folder, info = usableModel(model, "segmentation", None)
        refuseManyChannels(info)
        folder, settings = Path(folder).absolute(), SegmentOptions(**options).settings()
        out = Path(outputFolder).absolute() if outputFolder is not None else defaultOutput(folder, info)
        return lambda: listFolder(folder, out, info, settings)

    def folderBatch(self, listing: FolderListing, model: str | Path, *, device: str = "auto",
                    target: str | None = None, again: bool = False, **options: Any) -> FollowedJob:
        """Begin what `segmentAll` does for the images of a folder, which were listed.

        :raises ValueError: what is there was made with other choices, and is not to be made again.
        """
        modelFolder, _info = usableModel(model, "segmentation", None)
        if listing.difference and not again:
            raise ValueError(_("The results in {folder} were made with other choices ({difference}). Choose another "
                               "folder for the results, or do them again.").format(
                                   folder=listing.out, difference=listing.difference))
        settings = SegmentOptions(device, **options).settings()
        if target is not None:
            get_target(target)  # an unknown one is told before anything begins
            remote = RemoteFolderBatchJob(target, settings, modelFolder, listing, again)
            return self._followed(remote, False)  # type: ignore[attr-defined]
        if self.engineCommand is None:
            Dependencies.ensureInstalled()
        temporary = newTemporaryFolder()
        try:
            run = RunFolder.create(temporary / "run", "segment", {**settings, "format": FORMAT}, {
                "model": str(modelFolder), "images": [image.name for image in listing.images],
                "out": str(listing.out), "resume": not again})
            # As the engine is told them: results are called as the images are within their folder.
            process = ChildProcess(run.path, command=self.engineCommand, workingFolder=listing.folder)
            job = FolderBatchJob(run, process, listing, again)
            process.start()
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return self._followed(job, False)  # type: ignore[attr-defined]
