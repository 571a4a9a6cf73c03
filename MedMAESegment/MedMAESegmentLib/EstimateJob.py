"""One estimate by the warm worker of what a segmentation will take."""

from __future__ import annotations

from typing import Any

from MedMAESegmentLib.MemoryEstimate import MemoryEstimate, estimateOf
from MedMAESegmentLib.WorkerJob import WorkerJob


class EstimateJob(WorkerJob):
    """An estimate under way; its `result` is a `MemoryEstimate`."""

    def _takeResultSoon(self) -> None:
        self.result: Any = self._takeResult()
        self._end("done")

    def _takeResult(self) -> MemoryEstimate:
        return estimateOf(self._request.result)
