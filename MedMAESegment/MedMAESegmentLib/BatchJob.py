"""Many volumes of the scene, segmented one after the other; a bad one does not take the others down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer

from MedMAESegmentLib.BatchCase import BatchCase, summaryOf
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed
from MedMAESegmentLib.NodeReference import NodeReference

Start = Callable[[slicer.vtkMRMLVolumeNode], FollowedJob]


class BatchJob(FollowedJob):
    """The cases are in `cases`; `result` is that list. Voxels are handed over when a case's turn has come.

    Volumes that have a result of this very model already are done: started again, a batch goes on where it ended.
    """

    def __init__(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], start: Start, modelVersion: str,
                 outputFolder: Path | None = None) -> None:
        """`start` begins the segmentation of one volume; results are also saved in `outputFolder`."""
        super().__init__()
        self.cases = [BatchCase(node.GetName()) for node in volumeNodes]
        self._volumes = [NodeReference(node) for node in volumeNodes]
        self._start, self._outputFolder = start, outputFolder
        self._job: FollowedJob | None = None
        self._index, self._isStarting = -1, False
        for case, node in zip(self.cases, volumeNodes, strict=True):
            case.result = _resultOf(node, modelVersion)
            if case.result is not None:
                case.state, case.message = "done", "Was segmented before."

    def poll(self) -> bool:
        """Look after the case that is being segmented, or start the next."""
        if self._ended or self._isStarting:
            return self._ended
        if self._job is not None and not self._job.poll():
            return False
        if self._job is not None:
            self._note(self._job)
        following = next((index for index, case in enumerate(self.cases) if case.state == "waiting"), None)
        if following is None:
            self._finish()
        else:
            self._begin(following)
        return self._ended

    def cancel(self) -> None:
        """End the case that is being segmented, and leave out those that wait; what is done stays."""
        if self._ended:
            return
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
        for case in self.cases:
            if case.state in ("waiting", "running"):
                case.state, case.message = "cancelled", ""
        self.error = RunCancelled("Cancelled.")
        self._end("cancelled")

    def _begin(self, index: int) -> None:
        case, node = self.cases[index], self._volumes[index].node
        self._index, case.state, self.state = index, "running", "running"
        self._isStarting = True
        try:
            if node is None:
                raise ValueError(f"{case.name} was removed from the scene.")
            job = self._start(node)
        except Exception as error:  # noqa: BLE001 - belongs to this case, the others go on
            if case.state == "running":
                case.state, case.message = "failed", str(error)
            return
        finally:
            self._isStarting = False
        if self._ended:  # cancelled while the voxels were handed over
            job.cancel()
            return
        self._job = job
        job.progressed.connect(self._onProgress)
        self._onProgress(0.0, "Starting")

    def _onProgress(self, fraction: float, message: str) -> None:
        case = self.cases[self._index]
        case.message = message
        done = sum(one.state not in ("waiting", "running") for one in self.cases)
        self._progress((done + fraction) / len(self.cases), f"{case.name}: {message}")

    def _note(self, job: FollowedJob) -> None:
        case, self._job = self.cases[self._index], None
        if job.error is not None:
            case.state, case.message = "failed", str(job.error)
            return
        case.state, case.message, case.result = "done", "", job.result
        if self._outputFolder is not None:
            try:
                _save(job.result, self._outputFolder, case.name)
            except OSError as error:
                case.state, case.message = "failed", f"The result could not be saved: {error}"

    def _finish(self) -> None:
        self.result = self.cases
        if self.cases and not any(case.state == "done" for case in self.cases):
            self.error = RunFailed(summaryOf(self.cases))
        self._end("done" if self.error is None else "failed")


def _resultOf(volumeNode: slicer.vtkMRMLVolumeNode, modelVersion: str) -> slicer.vtkMRMLSegmentationNode | None:
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
        node = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSegmentationNode")
        isOfModel = node.GetAttribute("MedMAE.modelVersion") == modelVersion
        if isOfModel and node.GetNodeReference(role) is volumeNode:
            return node
    return None


def _save(segmentationNode: Any, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = "".join(letter if letter.isalnum() or letter in " ._-" else "_" for letter in name)[:100].strip(" .")
    plain = plain or "case"
    path, number = folder / f"{plain}.seg.nrrd", 1
    while path.exists():
        number += 1
        path = folder / f"{plain}-{number}.seg.nrrd"
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: where the node is saved is the user's choice
    storage.SetFileName(str(path))
    if not storage.WriteData(segmentationNode):
        raise OSError(f"{path} cannot be written. Check free space and permissions.")
