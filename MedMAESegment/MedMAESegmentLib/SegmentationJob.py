"""One segmentation by the warm worker: from the voxels that were handed over to the segmentation node in the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from medmae.worker.client import Request
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.LabelImport import importLabels
from MedMAESegmentLib.SegmentationReceiver import SegmentationReceiver
from MedMAESegmentLib.SegmentSummary import SegmentSummary, summariesOf
from MedMAESegmentLib.UncertaintyVolume import addUncertaintyVolume, readMap
from MedMAESegmentLib.WorkerJob import WorkerJob
from MedMAESegmentLib.WorkerSession import WorkerSession


class SegmentationJob(WorkerJob):
    """A segmentation under way; its `result` is the filled vtkMRMLSegmentationNode.

    Attributes:
        segments: what was found, one `SegmentSummary` each, once done.
        seconds: that the engine took, once done.
        uncertaintyNode: the map of uncertainty, where one was asked for, once done.
    """

    def __init__(self, session: WorkerSession, request: Request, images: Sequence[Mapping[str, Any]],
                 receiver: SegmentationReceiver, modelLabels: Sequence[Mapping[str, Any]],
                 wantsUncertainty: bool = False) -> None:
        super().__init__(session, request, images)
        self.segments: list[SegmentSummary] = []
        self.seconds = 0.0
        self.uncertaintyNode: slicer.vtkMRMLScalarVolumeNode | None = None
        self._receiver, self._modelLabels, self._wantsUncertainty = receiver, modelLabels, wantsUncertainty
        self._reading: BackgroundTask | None = None

    def undo(self) -> bool:
        """Take the result out of the scene again; whether there was one."""
        if self.uncertaintyNode is not None:
            slicer.mrmlScene.RemoveNode(self.uncertaintyNode)
            self.uncertaintyNode = None
        return self._receiver.undo()

    def _whyPointless(self) -> Exception | None:
        return self._receiver.whyPointless()

    def _takeResultSoon(self) -> None:
        if self._wantsUncertainty and self._reading is None:
            path, shape = Path(self._request.result["uncertainty"]), tuple(self._request.labels.shape)
            self._reading = BackgroundTask(lambda: readMap(path, shape))
        if self._reading is None or self._reading.isOver:
            super()._takeResultSoon()

    def _takeResult(self) -> slicer.vtkMRMLSegmentationNode:
        facts, labels = self._request.result, np.asarray(self._request.labels)
        node = self._receiver.receive(lambda volumeNode, segmentationNode: importLabels(
            labels, self._modelLabels, volumeNode, segmentationNode, self._receiver.options))
        self.segments, self.seconds = summariesOf(facts["labels"]), facts["seconds"]
        if self._reading is not None:
            self.uncertaintyNode = addUncertaintyVolume(self._reading.result(), self._receiver.volumeNode)
        return node
