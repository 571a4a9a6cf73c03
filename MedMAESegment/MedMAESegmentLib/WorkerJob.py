"""A job that the warm worker does: handed over, followed, cancelled, and its result taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from medmae.worker.client import Request, WorkerError
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed, asSentence, describe
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.WorkerSession import WorkerSession


class WorkerJob(FollowedJob):
    """One request to the worker; subclasses take its result.

    Ending it takes no time for the caller: a cancelled worker is waited for elsewhere, two seconds at most.
    """

    pollIntervalMs = 50

    def __init__(self, session: WorkerSession, request: Request, images: Sequence[Mapping[str, Any]]) -> None:
        """`images` are the voxels in the request, released at the end."""
        super().__init__()
        self._session, self._request, self._images = session, request, list(images)
        self._toldProgress: Any = None
        self._isAboutToTake = False

    def cancel(self) -> None:
        """End the job at once; the worker obeys within two seconds, and is replaced if it does not."""
        if not self._ended:
            self.error = RunCancelled(_("Cancelled."))
            self._end("cancelled")

    def poll(self) -> bool:
        """Take in what the worker has said; True once the job has ended. Fast enough for any event loop."""
        if self._ended:
            return True
        self._session.poll()
        lost = self._whyPointless()
        if lost is not None:
            self.error = lost
            self._end("failed")
        elif self._request.state == "failed":
            self._takeFailure()
        elif self._request.state == "done":
            self._takeResultSoon()
        else:
            self._tellProgress()
        return self._ended

    def _takeResult(self) -> Any:
        """What the job gives; for subclasses. The request is done."""
        return self._request.result

    def _whyPointless(self) -> Exception | None:
        """Why nobody can use the result any more; for subclasses."""
        return None

    def _takeResultSoon(self) -> None:
        """Say that the result is about to be taken, and take it at the next look, when that is on the screen."""
        if not self._isAboutToTake:
            self._isAboutToTake = True
            self._progress(1.0, _("Taking over the result"))
            return
        try:
            self.result = self._takeResult()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the result belongs to the job's caller
            logging.getLogger(__name__).debug("Taking over the result failed", exc_info=True)
            self.error = error
        self._end("done" if self.error is None else "failed")

    def _takeFailure(self) -> None:
        error = self._request.error
        assert error is not None
        self.error = self._failure(error)
        self._end("cancelled" if error.kind == "cancelled" else "failed")

    def _failure(self, error: WorkerError) -> Exception:
        """The worker's reason in the user's terms; its log goes into Slicer's."""
        if error.kind == "cancelled":
            return RunCancelled(_("Cancelled."))
        if error.kind == "bad_input":  # the reason says already what to do
            return RunFailed(error.reason)
        logging.getLogger(__name__).info("Log of the computation that failed:\n%s", self._session.log())
        reason, remedy = error.reason, error.remedy
        if "ModuleNotFoundError" in reason or "ImportError" in reason:
            remedy = _("A Python package that the computation needs is missing or damaged. Restart Slicer and try "
                       "again; if it stays so, reinstall that package.")
        elif remedy and "log" in remedy:
            remedy = _("Slicer's log has the details.")
        return RunFailed(" ".join(asSentence(part) for part in (reason, remedy) if part))

    def _tellProgress(self) -> None:
        state = "running" if self._request.state == "running" else "queued"
        record = self._request.progress
        if record is not None and record is not self._toldProgress:
            self.state, self._toldProgress = state, record
            self._progress(record["step"] / max(1, record["total"]), describe(record))
        elif state != self.state and record is None:
            self.state = state
            self._progress(0.0, _("Loading the model"))

    def _cleanUp(self) -> None:
        self._session.abandon(self._request, self._images)
