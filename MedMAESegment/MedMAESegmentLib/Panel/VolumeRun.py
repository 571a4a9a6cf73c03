"""One press of the button: from handing over the volumes to the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import slicer

from MedMAESegmentLib.FollowedJob import FollowedJob, ProgressCallback, RunCancelled
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.Panel.Choices import Choices
from MedMAESegmentLib.Signal import Signal

RunState = Literal["starting", "running", "done", "failed", "cancelled"]


class VolumeRun:
    """What a panel shows of the segmentation or classification of one volume.

    Attributes:
        volume: reference to the (first) volume.
        choices: with which it was begun.
        job: what is followed, once the volumes are handed over.
        seconds: from the press to the end, once done.
        changed: emitted with the run whenever something of it has changed.
    """

    def __init__(self, volumeNode: slicer.vtkMRMLVolumeNode, choices: Choices) -> None:
        self.volume, self.choices = NodeReference(volumeNode), choices
        self.state: RunState = "starting"
        self.fraction, self.message, self.seconds = 0.0, "", 0.0
        self.job: FollowedJob | None = None
        self.changed = Signal()
        self._begun = time.monotonic()

    @property
    def isBusy(self) -> bool:
        """Whether it is under way."""
        return self.state in ("starting", "running")

    def start(self, begin: Callable[[ProgressCallback], FollowedJob]) -> None:
        """Begin with ``begin(progressCallback)``, which gives the job; the application is alive meanwhile.

        Raises:
            Exception: of `begin`; the run has failed then.
        """
        try:
            job = begin(self._onProgress)
        except RunCancelled:
            self._end("cancelled")
            return
        except BaseException:
            self._end("failed")
            raise
        if not self.isBusy:  # cancelled while the volumes were handed over
            job.cancel()
            return
        self.job, self.state = job, "running"
        job.finished.connect(self._onFinished)
        self.changed.emit(self)

    def cancel(self) -> None:
        """End it at once."""
        if self.job is not None:
            self.job.cancel()
        elif self.isBusy:
            self._end("cancelled")

    def _onProgress(self, fraction: float, message: str) -> None:
        if self.isBusy:
            self.fraction, self.message = fraction, message
            self.changed.emit(self)

    def _onFinished(self, job: Any) -> None:
        if job.error is None:
            self._end("done")
        elif isinstance(job.error, RunCancelled):
            self._end("cancelled")
        else:
            self._end("failed")

    def _end(self, state: RunState) -> None:
        if not self.isBusy:  # cancelled, and what was being begun has come to the same end
            return
        self.state, self.seconds = state, time.monotonic() - self._begun
        self.changed.emit(self)
