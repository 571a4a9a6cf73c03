"""Predicting and ranking on another computer: submitted, followed and fetched, never blocking."""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed, asSentence
from MedMAESegmentLib.RemoteProgress import progressOf
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.inference.manifest import MANIFEST, read_manifest
from MedMAETrainLib.PredictionJob import caseText, writeCases
from MedMAETrainLib.PredictionWork import ID_PREFIX, PredictionWork

LOOK_EVERY_SECONDS = 1.0
RESULTS = "outputs"  # of a job, in its folder here


class PredictionElsewhereJob(FollowedJob):
    """Its `result` is a `LoopResult`. Results come when the job over there has ended, however it has.

    What a job has finished that was cancelled, or that Slicer's end has left alone, is not lost: started again, this
    follows that job or takes what it has finished, and submits only what is missing. Everything that talks to the
    target happens in a thread.
    """

    def __init__(self, target: str, config: dict[str, Any], modelFolder: Path, work: PredictionWork) -> None:
        super().__init__()
        self.work = work
        self._name = _jobName(target, config, work)
        # What is submitted is read by another process, which outlives this one; so it lies in no temporary folder.
        self._dataset = work.project.path / f"{self._name}.json"
        self._told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._finished: list[Any] = []  # jobs of which everything has come
        self._task: BackgroundTask = BackgroundTask(lambda: self._compute(target, config, modelFolder))

    def poll(self) -> bool:
        """Take in what the thread has said; True once all of it is in the project."""
        if self._ended:
            return True
        try:
            while not self._told.empty():
                self.state = "running"
                self._told.get()()
            isOver = self._task.isOver and self._told.empty()
            if self.work.poll() and isOver:
                self._take()
        except (ValueError, BadInput, OSError) as error:
            self.error = error
            self._end("failed")
        return self._ended

    def cancel(self) -> None:
        """End the job; the target is told in the background. What it has finished is taken another time."""
        if not self._ended:
            self.error = RunCancelled(_("Cancelled."))
            self._end("cancelled")

    def _take(self) -> None:
        try:
            self._task.result()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong over there belongs to the job's caller
            self.error = error
        else:
            self.result = self.work.result
            if not self.result.done and self.result.failed:
                self.error, self.result = RunFailed(self.result.failed[0][1]), None
        self._end("done" if self.error is None else "failed")

    def _compute(self, target: str, config: dict[str, Any], modelFolder: Path) -> None:
        """Take what an earlier job has finished, and have the rest done; in the thread."""
        from medmae.jobs.job import list_jobs
        from medmae.jobs.submission import submit
        from medmae.jobs.targets import get_target

        where, finished = get_target(target), set()
        for earlier in [job for job in list_jobs() if job.name == self._name and job.kind == "rank"]:
            # However it has ended: the rest is submitted anew.
            finished |= self._await(earlier, target, len(self.work.cases))[0]
        missing = [case for case in self.work.cases if case.id not in finished]
        if not missing:
            return
        inputs = {"model": str(modelFolder), **writeCases(self._dataset, self.work.project, missing)}
        job = submit(where, "rank", config, inputs, name=self._name)
        finished, problem = self._await(job, target, len(missing))
        if problem and not finished:
            raise RunFailed(problem)

    def _await(self, job: Any, target: str, count: int) -> tuple[set[str], str]:
        """Follow a job until its end and fetch its results; returns the cases that it has finished, and why it has not
        finished all, or "". `count`: of its cases."""
        from medmae.jobs.fetching import fetch
        from medmae.jobs.following import follow
        from medmae.jobs.stopping import stop

        while not (status := follow(job)).is_final:
            fraction, text = progressOf(status, target)
            if status.state == "running" and status.step and status.total:
                number = min(int(fraction * count) + 1, count)
                text = caseText(number, count, status.eta_s)
            self._told.put(lambda fraction=fraction, text=text: self._progress(fraction, text))  # type: ignore[misc]
            if self._stop.wait(LOOK_EVERY_SECONDS):
                stop(job, hard=True)
                self._dataset.unlink(missing_ok=True)
                raise RunCancelled(_("Cancelled."))
        job = job.refreshed()
        problem = "" if status.state == "done" else " ".join(
            asSentence(part) for part in (status.reason, status.remedy) if part)
        if job.folder is None:  # it has not come to a run
            return set(), problem
        self._told.put(lambda: self._progress(1.0, _("Fetching the results")))
        fetch(job, partial=True)
        self._finished.append(job)
        out = job.mirror / RESULTS
        self._told.put(lambda: self.work.read(out))
        self._told.put(lambda: self.work.readFailures(job.mirror / "result.json"))
        _header, records = read_manifest(out / MANIFEST)
        return {name.removeprefix(ID_PREFIX) for name in records}, problem

    def _cleanUp(self) -> None:
        from medmae.jobs.discarding import discard_soon

        self._stop.set()
        if self.error is None:  # else what has come may not be in the project yet
            for job in self._finished:
                discard_soon(job)
            self._dataset.unlink(missing_ok=True)


def _jobName(target: str, config: dict[str, Any], work: PredictionWork) -> str:
    """What the job of this model in this project is called on this target, by which it is found again."""
    key = json.dumps([target, work.project.uid, work.info.weights_sha256, config], sort_keys=True)
    return f"next-case-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
