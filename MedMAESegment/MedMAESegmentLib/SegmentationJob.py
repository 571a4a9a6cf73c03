"""One segmentation under way: from the exported volume to the segmentation node in the scene."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import slicer

import medmae
from medmae.run_folder import RunFolder
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.RunJob import RunFailed, RunJob
from MedMAESegmentLib.SegmentationImport import canReceive, loadSegmentation
from MedMAESegmentLib.VolumeExport import ijkToRas

VOLUME_FILE = "volume.nrrd"
_LOG_CHARACTERS = 20000


class SegmentationJob(RunJob):
    """Follows a run of kind "segment"; its `result` is the filled vtkMRMLSegmentationNode.

    While the child works the user may delete or change any of the nodes.
    """

    def __init__(self, run: RunFolder, process: ChildProcess, folder: Path, volumeNode: slicer.vtkMRMLVolumeNode,
                 geometry: np.ndarray, segmentationNode: slicer.vtkMRMLSegmentationNode | None,
                 attributes: dict[str, str]) -> None:
        """`folder` is temporary and removed at the end; `attributes` are recorded in the node."""
        super().__init__(run, process)
        self._folder = folder
        self._volume, self._volumeName, self._geometry = NodeReference(volumeNode), volumeNode.GetName(), geometry
        self._grid = _grid(volumeNode)
        self._segmentation = NodeReference(segmentationNode) if segmentationNode is not None else None
        self._attributes = attributes

    def _takeResult(self) -> slicer.vtkMRMLSegmentationNode:
        volumeNode = self._volume.node
        if volumeNode is None:
            raise RunFailed("The volume was removed from the scene while it was being segmented; the result was "
                            "discarded. Load the volume and segment it again.")
        if _grid(volumeNode) != self._grid:
            raise RunFailed(f"The volume {volumeNode.GetName()} was changed while it was being segmented; the result "
                            "was discarded. Segment it again.")
        segmentationNode = self._segmentation.node if self._segmentation is not None else None
        if segmentationNode is not None and not canReceive(segmentationNode, volumeNode):
            segmentationNode = None  # it was moved away meanwhile: the result gets a node of its own
        files = sorted((self.run.path / "out").rglob("*.seg.nrrd"))
        if len(files) != 1:
            raise RunFailed(f"The computation left {len(files)} results instead of one. Segment the volume again.")
        segmentationNode = loadSegmentation(files[0], volumeNode, self._geometry, segmentationNode)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        for name, value in {**self._attributes, "version": medmae.__version__, "date": date}.items():
            segmentationNode.SetAttribute(f"MedMAE.{name}", value)
        return segmentationNode

    def _failure(self, name: str, state: dict[str, Any]) -> Exception:
        """The reason in the user's terms; the run's log goes into Slicer's, for its folder is about to be removed."""
        if self.run.log_file.exists():
            text = self.run.log_file.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:]
            logging.getLogger(__name__).info("Log of the segmentation that failed:\n%s", text)
        reason = (state.get("reason") or "").replace(str(self._folder / VOLUME_FILE), f"The volume {self._volumeName}")
        remedy = state.get("remedy")
        if remedy and self.run.log_file.name in remedy:
            remedy = "Slicer's log has the details."
        return super()._failure(name, {**state, "reason": reason, "remedy": remedy})

    def _cleanUp(self) -> None:
        if self._process is not None and not self._process.waitForExit(0.05):
            self._process.killTree()
        # A file that Windows still holds open must not turn a good result into an error.
        shutil.rmtree(self._folder, ignore_errors=True)


def _grid(volumeNode: slicer.vtkMRMLVolumeNode) -> tuple:
    """What must not change between handing over and taking back: the voxel grid itself (a transform may move)."""
    image = volumeNode.GetImageData()
    return ijkToRas(volumeNode).tolist(), image.GetDimensions() if image is not None else None
