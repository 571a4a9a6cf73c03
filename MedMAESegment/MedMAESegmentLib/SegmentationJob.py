"""One segmentation under way: from the exported volume to the segmentation node in the scene."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import slicer

import medmae
from medmae.run_folder import RunFolder
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.RunJob import RunFailed, RunJob
from MedMAESegmentLib.SegmentationImport import loadSegmentation


class SegmentationJob(RunJob):
    """Follows a run of kind "segment"; its `result` is the filled vtkMRMLSegmentationNode.

    Nodes are remembered by their ID: while the child works the user may delete any of them.
    """

    def __init__(self, run: RunFolder, process: ChildProcess, folder: Path, volumeNode: slicer.vtkMRMLVolumeNode,
                 geometry: np.ndarray, segmentationNode: slicer.vtkMRMLSegmentationNode | None,
                 attributes: dict[str, str]) -> None:
        """`folder` is temporary and removed at the end; `attributes` are recorded in the node."""
        super().__init__(run, process)
        self._folder = folder
        self._volumeId, self._geometry = volumeNode.GetID(), geometry
        self._gridId = _grid(volumeNode)
        self._segmentationId = segmentationNode.GetID() if segmentationNode is not None else None
        self._attributes = attributes

    def _takeResult(self) -> slicer.vtkMRMLSegmentationNode:
        volumeNode = slicer.mrmlScene.GetNodeByID(self._volumeId)
        if volumeNode is None:
            raise RunFailed("The volume was removed from the scene while it was being segmented; the result was "
                            "discarded. Load the volume and segment it again.")
        if _grid(volumeNode) != self._gridId:
            raise RunFailed(f"The volume {volumeNode.GetName()} was changed while it was being segmented; the result "
                            "was discarded. Segment it again.")
        segmentationNode = slicer.mrmlScene.GetNodeByID(self._segmentationId) if self._segmentationId else None
        files = sorted((self.run.path / "out").rglob("*.seg.nrrd"))
        if len(files) != 1:
            raise RunFailed(f"The computation left {len(files)} results instead of one. Segment the volume again.")
        segmentationNode = loadSegmentation(files[0], volumeNode, self._geometry, segmentationNode)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        for name, value in {**self._attributes, "version": medmae.__version__, "date": date}.items():
            segmentationNode.SetAttribute(f"MedMAE.{name}", value)
        return segmentationNode

    def _cleanUp(self) -> None:
        if self._process is not None and not self._process.waitForExit(0.05):
            self._process.killTree()
        # A file that Windows still holds open must not turn a good result into an error.
        shutil.rmtree(self._folder, ignore_errors=True)


def _grid(volumeNode: slicer.vtkMRMLVolumeNode) -> tuple:
    """What must not change between handing over and taking back: the voxel grid itself (a transform may move)."""
    image = volumeNode.GetImageData()
    return (volumeNode.GetOrigin(), volumeNode.GetSpacing(), image.GetDimensions() if image is not None else None)
