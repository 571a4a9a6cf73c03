"""Segment a volume of the scene with a MedMAE model, in a child process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer

from medmae.run_folder import RunFolder
from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.HandOver import HandOver
from MedMAESegmentLib.RunJob import ProgressCallback
from MedMAESegmentLib.SegmentationImport import canReceive
from MedMAESegmentLib.SegmentationJob import VOLUME_FILE, SegmentationJob
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels, writeVolume

EDITOR_TAG = "MedMAESegment"


class SegmentLogic:
    """The computation of the MedMAESegment module; needs no widget.

    >>> segmentation = logic.segment(volumeNode, "hippocampus")
    >>> job = logic.segment(volumeNode, "hippocampus", waitForCompletion=False)
    >>> job.finished.connect(lambda job: print(job.result.GetName()))
    """

    def __init__(self) -> None:
        self.engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here
        self.jobs: list[SegmentationJob] = []
        self._handOvers: list[HandOver] = []

    def models(self) -> dict[str, Any]:
        """The installed segmentation models: name to `medmae.models.ModelInfo`."""
        from medmae.models import list_models

        return {name: info for name, info in list_models() if info.task == "segmentation"}

    def describeModel(self, info: Any) -> str:
        """What a model segments and what it was made from, in two lines."""
        names = [str(label["name"]) for label in info.labels[1:]]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        cases = info.training.get("cases")
        parts = [info.modality, f"{info.spatial_dims}-D", f"trained on {cases} cases" if cases else ""]
        return f"{shown}\n{', '.join(part for part in parts if part)}"

    def replacedSegments(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None, info: Any) -> list[str]:
        """The names of the segments that a result of the model would replace in a segmentation."""
        if segmentationNode is None:
            return []
        names = [str(label["name"]) for label in info.labels[1:]]
        return [name for name in names if segmentationNode.GetSegmentation().GetSegmentIdBySegmentName(name)]

    def isResultOfAnother(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None,
                          volumeNode: slicer.vtkMRMLVolumeNode | None) -> bool:
        """Whether a segmentation was drawn on another volume than the given one."""
        if segmentationNode is None or volumeNode is None:
            return False
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        return segmentationNode.GetNodeReference(role) not in (None, volumeNode)

    def segment(self, volumeNode: slicer.vtkMRMLVolumeNode, model: str | Path,
                segmentationNode: slicer.vtkMRMLSegmentationNode | None = None, device: str = "auto", *,
                precision: str | None = None, overlap: float | None = None,
                progressCallback: ProgressCallback | None = None,
                waitForCompletion: bool = True) -> slicer.vtkMRMLSegmentationNode | SegmentationJob:
        """Segment a volume.

        :param volumeNode: scalar or colour volume. Of a sequence the current frame is used. Parent transforms: the
          network sees the volume under a rigid or scaling one, and as acquired under a warping one; the result is on
          the volume's own voxels and under the same transform in every case.
        :param model: name in the registry, model folder or zip, or run folder.
        :param segmentationNode: where the result goes; its segments of other names are kept. None: a new node.
        :param device: "auto", "cpu", "cuda:0".
        :param precision: "fp32", "bf16" or "fp16"; None: what suits the device.
        :param overlap: of neighbouring windows, 0 to below 1; None: the default.
        :param progressCallback: called with (fraction from 0 to 1, message) while the child works.
        :param waitForCompletion: True: return the segmentation node when it is filled, with the application alive
          meanwhile. False: return a `SegmentationJob` at once.
        :raises ValueError: the volume cannot be segmented, or the segmentation cannot take the result.
        :raises medmae.errors.BadInput: the model cannot be used.
        :raises RunFailed: the computation failed; the text is its reason.
        :raises RunCancelled: it was cancelled.
        """
        from medmae.models import load_info, resolve_model

        _refuseUnusable(volumeNode, segmentationNode)
        modelFolder = resolve_model(model)
        info = load_info(modelFolder)
        if info.task != "segmentation":
            raise ValueError(f"The model {info.name} is for {info.task}, not for segmentation. Choose another model.")
        config = {"device": device, "format": "seg.nrrd", "precision": precision, "overlap": overlap}
        attributes = {"model": info.name, "modelVersion": info.weights_sha256}
        job = self._start(volumeNode, modelFolder, segmentationNode, config, attributes, progressCallback)
        self.jobs.append(job)
        job.finished.connect(self._onFinished)
        if waitForCompletion:
            return job.wait()
        job.startFollowing()
        return job

    def cancel(self) -> None:
        """End every segmentation under way, with all its processes."""
        for handOver in self._handOvers:
            handOver.cancel()
        for job in list(self.jobs):
            job.cancel()

    def getSegmentEditorNode(self) -> slicer.vtkMRMLSegmentEditorNode:
        """The module's segment editor parameter node, the same one for the life of the scene."""
        node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetName("MedMAE segment editor")
            node.SetSingletonTag(EDITOR_TAG)
            node = slicer.mrmlScene.AddNode(node)
        return node

    def editSegmentation(self, segmentationNode: slicer.vtkMRMLSegmentationNode,
                         editorNode: slicer.vtkMRMLSegmentEditorNode | None = None) -> slicer.vtkMRMLSegmentEditorNode:
        """Set up an editor node (default: the module's own) for a segmentation, its volume and its first segment."""
        editorNode = editorNode or self.getSegmentEditorNode()
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        editorNode.SetAndObserveSegmentationNode(segmentationNode)
        editorNode.SetAndObserveSourceVolumeNode(segmentationNode.GetNodeReference(role))
        segmentation = segmentationNode.GetSegmentation()
        editorNode.SetSelectedSegmentID(
            segmentation.GetNthSegmentID(0) if segmentation.GetNumberOfSegments() > 0 else "")
        return editorNode

    def _start(self, volumeNode: slicer.vtkMRMLVolumeNode, model: Path,
               segmentationNode: slicer.vtkMRMLSegmentationNode | None, config: dict[str, Any],
               attributes: dict[str, str], progressCallback: ProgressCallback | None) -> SegmentationJob:
        report = progressCallback or (lambda _fraction, _message: None)
        if self.engineCommand is None:
            Dependencies.ensureInstalled()
        handOver, folder = HandOver([volumeNode]), newTemporaryFolder()
        self._handOvers.append(handOver)
        try:
            report(0.0, "Handing over the volume")
            handOver()
            image, geometry = folder / VOLUME_FILE, networkGeometry(volumeNode)
            writeVolume(volumeNode, image, handOver)
            run = RunFolder.create(
                folder / "run", "segment", {key: value for key, value in config.items() if value is not None},
                {"model": str(Path(model).resolve()), "images": [str(image)], "out": str(folder / "run" / "out")})
            report(0.0, "Starting")
            process = ChildProcess(run.path, command=self.engineCommand)
            job = SegmentationJob(run, process, folder, volumeNode, geometry, segmentationNode, attributes)
            process.start()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._handOvers.remove(handOver)
        job.progressed.connect(report)
        return job

    def _onFinished(self, job: SegmentationJob) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
        if job.result is not None:
            self.editSegmentation(job.result)


def _refuseUnusable(volumeNode: Any, segmentationNode: Any) -> None:
    voxels(volumeNode)
    if volumeNode.GetScene() is not slicer.mrmlScene:
        raise ValueError(f"The volume {volumeNode.GetName()} is not in the scene. Add it first.")
    if segmentationNode is None:
        return
    if not isinstance(segmentationNode, slicer.vtkMRMLSegmentationNode):
        raise ValueError("The result needs a segmentation node. Give one, or none for a new one.")
    if not canReceive(segmentationNode, volumeNode):
        raise ValueError(f"The segmentation {segmentationNode.GetName()} is under another transform than the volume "
                         f"{volumeNode.GetName()}, so that its segments would move. Choose a new segmentation, or put "
                         "both under the same transform.")
