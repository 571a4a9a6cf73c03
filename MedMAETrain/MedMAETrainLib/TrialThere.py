"""A trial on another computer: a job like any other, which is ended and removed there as soon as it was measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.RunJob import RunJob
from MedMAESegmentLib.Translation import tr as _

from medmae.jobs.discarding import discard_soon
from medmae.jobs.following import Status, follow
from medmae.jobs.submission import submit
from medmae.jobs.targets import get_target
from medmae.run_folder import Kind, RunFolder
from MedMAETrainLib.RunListing import TRIAL_MARK

LOOK_EVERY_SECONDS = 1.0


class TrialThere(RunJob):
    """Follows the job through its mirror. `cancel` ends and removes it, here and there, also when it is over."""

    def __init__(self, target: str, kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any],
                 folders: Sequence[Path]) -> None:
        """`folders` hold what travels; they are removed with the job."""
        self._job = submit(get_target(target), kind, config, inputs)
        super().__init__(RunFolder(self._job.mirror))
        (self._job.mirror / TRIAL_MARK).touch()
        self._folders = folders
        self._looking: BackgroundTask[Status] | None = None
        self._looked = 0.0
        self._isDiscarded = False

    def poll(self) -> bool:
        """Look whether the last question to the target was answered, and ask the next."""
        if self._ended:
            return True
        if self._looking is None:
            if time.monotonic() - self._looked >= LOOK_EVERY_SECONDS:
                self._looking = BackgroundTask(lambda: follow(self._job))
            return False
        if not self._looking.isOver:
            return False
        status, self._looking, self._looked = self._looking.result(), None, time.monotonic()
        if status.state in ("submitting", "queued", "unreachable"):
            self._progress(0.0, _waiting(status.state).format(target=self._job.target.name))
        self._readProgress()
        if status.is_final and not self._ended:
            if status.state != "done":
                self.error = self._failure(status.state, {"reason": status.reason, "remedy": status.remedy})
            self._end(status.state)
        return self._ended

    def cancel(self) -> None:
        """End it there, and remove it; by a process of its own."""
        if not self._isDiscarded:
            self._isDiscarded = True
            discard_soon(self._job, self._folders)
        if not self._ended:
            self.error = RunCancelled(_("Cancelled."))
            self._end("cancelled")


def _waiting(state: str) -> str:
    return {"submitting": _("Sending to {target}"), "queued": _("Waiting on {target}"),
            "unreachable": _("{target} does not answer")}[state]
