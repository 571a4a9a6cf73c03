"""One segmentation on another computer: submitted, followed, fetched and taken into the scene, never blocking."""

from __future__ import annotations

import atexit
import functools
import json
import queue
import shutil
import threading
from pathlib import Path
from typing import Any

import slicer

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed, asSentence
from MedMAESegmentLib.RemoteProgress import progressOf
from MedMAESegmentLib.SegmentationImport import loadSegmentation
from MedMAESegmentLib.SegmentationReceiver import SegmentationReceiver
from MedMAESegmentLib.SegmentSummary import SegmentSummary, summariesOf
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.UncertaintyVolume import addUncertaintyVolume, readMap
from MedMAESegmentLib.VolumeExport import voxels

LOOK_EVERY_SECONDS = 1.0
_underWay: set[RemoteSegmentationJob] = set()


class RemoteSegmentationJob(FollowedJob):
    """A segmentation on a target; its `result` is the filled vtkMRMLSegmentationNode.

    Everything that talks to the target happens in a thread; the scene is touched here alone. One whose result is here,
    or that is cancelled, also by the end of the application, is ended and removed on its target by a process that
    outlives this one. A run that has failed there stays, with its log.
    """

    def __init__(self, target: str, config: dict[str, Any], inputs: dict[str, Any], folder: Path,
                 receiver: SegmentationReceiver) -> None:
        """`config` and `inputs` are those of the run; `folder` is temporary, holds its files, and goes at the end."""
        super().__init__()
        self.segments: list[SegmentSummary] = []
        self.seconds = 0.0
        self.uncertaintyNode: slicer.vtkMRMLScalarVolumeNode | None = None
        self._receiver, self._folder = receiver, folder
        self._told: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._submitted: Any = None
        self._isOfNoUse = False  # to anybody, once the thread is over: nothing of it is wanted from the target
        self._discarding = threading.Lock()
        self._wantsMap = bool(config.get("uncertainty"))
        shape = voxels(receiver.volumeNode).shape[:3]
        self._task: BackgroundTask = BackgroundTask(lambda: self._compute(target, config, inputs, shape))
        _underWay.add(self)
        _endWithApplication()

    def poll(self) -> bool:
        """Take in what the thread has said; True once the job has ended."""
        if self._ended:
            return True
        self._tell()
        lost = self._receiver.whyPointless()
        if lost is not None and not self._ended:
            self.error = lost
            self._end("failed")
        elif self._task.isOver and not self._ended:
            self._take()
        return self._ended

    def cancel(self) -> None:
        """End the job at once; the target is told by another process."""
        if not self._ended:
            self.error = RunCancelled(_("Cancelled."))
            self._end("cancelled")

    def undo(self) -> bool:
        """Take the result out of the scene again; whether there was one."""
        if self.uncertaintyNode is not None:
            slicer.mrmlScene.RemoveNode(self.uncertaintyNode)
            self.uncertaintyNode = None
        return self._receiver.undo()

    def _compute(self, target: str, config: dict[str, Any], inputs: dict[str, Any],
                 shape: tuple[int, ...]) -> tuple[Path, dict[str, Any], Any]:
        """Submit, follow, fetch; in the thread. Returns the segmentation's file, the facts, the map of uncertainty."""
        from medmae.jobs.fetching import fetch
        from medmae.jobs.following import follow
        from medmae.jobs.submission import submit
        from medmae.jobs.targets import get_target

        out = self._folder / "out"
        try:
            if not self._stop.is_set():
                job = self._submitted = submit(get_target(target), "segment", config, inputs, out=out)
            while not self._stop.is_set() and not (status := follow(job)).is_final:
                self._told.put(progressOf(status, target))
                self._stop.wait(LOOK_EVERY_SECONDS)
            if self._stop.is_set():
                raise RunCancelled(_("Cancelled."))
            if status.state != "done":
                raise self._failure(job, status)
            self._told.put((1.0, _("Fetching the result")))
            fetch(job)
            (file,) = out.rglob("*.seg.nrrd")
            (facts,) = json.loads((job.mirror / "result.json").read_text("utf-8"))["cases"]
            maps = [readMap(path, shape) for path in out.rglob("*.uncertainty.nii.gz")] if self._wantsMap else []
            self._isOfNoUse = True
            return file, facts, maps[0] if maps else None
        finally:
            if self._stop.is_set():
                self._discard()

    def _failure(self, job: Any, status: Any) -> RunFailed:
        """Why there is no result, without what only helps those who go on with a job."""
        from medmae.jobs.submission import submission_of

        submission = submission_of(job)
        parts = [status.reason, status.remedy]
        if submission.is_over and submission.stage != "done":  # no run has begun there
            self._isOfNoUse = True
            parts = [submission.error, submission.remedy]
        return RunFailed(" ".join(asSentence(part) for part in parts if part))

    def _take(self) -> None:
        try:
            file, facts, uncertainty = self._task.result()
            self.result = self._receiver.receive(lambda volumeNode, segmentationNode: loadSegmentation(
                file, volumeNode, self._receiver.geometry, segmentationNode, self._receiver.options))
            self.segments, self.seconds = summariesOf(facts["labels"]), facts["seconds"]
            if uncertainty is not None:
                self.uncertaintyNode = addUncertaintyVolume(uncertainty, self._receiver.volumeNode)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the result belongs to the job's caller
            self.error = error
        self._end("done" if self.error is None else "failed")

    def _tell(self) -> None:
        while not self._ended and not self._told.empty():
            self.state = "running"
            self._progress(*self._told.get())

    def _cleanUp(self) -> None:
        _underWay.discard(self)
        isOver = self._task.isOver
        self._stop.set()
        if isOver:
            shutil.rmtree(self._folder, ignore_errors=True)
        if not isOver or self._isOfNoUse:
            self._discard()

    def _discard(self) -> None:
        """Nobody wants the result: tell the target, and leave nothing behind. Called by the thread, too."""
        from medmae.jobs.discarding import discard_soon

        if self._submitted is None:  # if it is about to be, the thread will find that nobody wants it
            shutil.rmtree(self._folder, ignore_errors=True)
        elif self._discarding.acquire(blocking=False):  # once
            discard_soon(self._submitted, [self._folder])


def endAll() -> None:
    """End all jobs that are under way: the application ends."""
    for job in list(_underWay):
        job.cancel()


@functools.cache
def _endWithApplication() -> None:
    atexit.register(endAll)
    connect = getattr(getattr(slicer, "app", None), "connect", None)
    if connect is not None:  # before Qt and the Python interpreter are taken down
        connect("aboutToQuit()", endAll)
