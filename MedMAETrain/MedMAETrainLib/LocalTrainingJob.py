"""A run of training on this computer: started in a process that outlives Slicer, or found again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.ChildProcess import ChildProcess, killTree
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.run_folder import RunFolder
from MedMAETrainLib import RunQueue
from MedMAETrainLib.RunListing import RunListing
from MedMAETrainLib.RunRequest import takeModel
from MedMAETrainLib.RunStatus import RunStatus, stateOfRun, statusOfRun
from MedMAETrainLib.TrainingJob import TrainingJob


class LocalTrainingJob(TrainingJob):
    """A `TrainingJob` of this computer.

    >>> job = LocalTrainingJob(run)   # one that was found, or waits in the queue
    >>> job.start()                   # one that has not begun
    """

    def __init__(self, run: RunFolder, *, command: Sequence[str] | None = None,
                 listing: RunListing | None = None) -> None:
        """`command` replaces ``python -m medmae.run``; `listing` tells whether anything is computed here."""
        super().__init__(run)
        self._command, self._listing = command, listing or RunListing()
        self._taking: BackgroundTask[str] | None = None

    def start(self) -> None:
        """Start the run, or go on with it from its checkpoint; a waiting one waits no longer.

        Raises:
            OSError: its process cannot be started.
        """
        RunQueue.leaveQueue(self.run)
        self.run.stop_file.unlink(missing_ok=True)
        self.run.write_state(state="queued", reason=None, remedy=None)
        self._process = ChildProcess(self.run.path, detached=True, command=self._command)
        try:
            self._process.start()
        except OSError:
            self._process = None
            raise
        self._setStatus(RunStatus("queued"))

    def stop(self) -> None:
        """Ask the run to stop gracefully; what it has learned so far stays and can be gone on with."""
        if self._ended:
            return
        if RunQueue.leaveQueue(self.run):
            self._note("stopped", _("It was taken out of the queue."))
            self.poll()
        else:
            self.run.request_stop()
            self._setStatus(replace(self._status, state="stopping"))

    def cancel(self) -> None:
        """End the run at once, also one that an earlier Slicer has started; one that another computer computes on a
        disk that both have is asked to stop."""
        if self._ended:
            return
        if not RunQueue.leaveQueue(self.run) and self._process is None:
            if not _killRun(self.run):
                self.stop()
                return
        elif self._process is not None:
            self._process.killTree()
        self._note("stopped", _("Cancelled."))
        super().cancel()

    def poll(self) -> bool:
        """Take in what is new on disk; True once the run has ended and its model was taken."""
        if self._ended:
            return True
        if self._taking is not None:
            if self._taking.isOver:
                self._takeOver(self._taking)
            return self._ended
        if RunQueue.isWaiting(self.run):
            self._setStatus(RunStatus("waiting"))
            if RunQueue.takeTurn(self.run, self._listing):
                self._startInTurn()
            return self._ended
        super().poll()
        return self._ended

    def _startInTurn(self) -> None:
        try:
            self.start()
        except OSError as error:
            self._note("failed", str(error))
            self._fail(error)

    def _readState(self) -> dict[str, Any]:
        state = stateOfRun(self.run)
        isAlive = self._process is not None and self._process.isRunning()
        if state["state"] == "interrupted" and isAlive:  # silent for long; we are its parent and know better
            state["state"] = "running"
        status = statusOfRun(state, self._record)
        isDone = status.state == "done"  # and has a model, which is about to be taken
        self._setStatus(replace(status, state="running", stage="installing") if isDone else status)
        return state

    def _takeEnd(self, name: str, state: dict[str, Any]) -> None:
        if name == "done":
            self._taking = BackgroundTask(lambda: takeModel(self.run))
            return
        if "updated" not in state:  # not from the folder: its process has ended without a word
            code = self._process.exitCode if self._process is not None else None
            self._note("interrupted" if code is not None and code < 0 else "failed", state.get("reason"),
                       state.get("remedy"))
        super()._takeEnd(name, state)

    def _takeOver(self, taking: BackgroundTask[str]) -> None:
        try:
            self.result = taking.result()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the model belongs to the job's caller
            self._fail(error)
            return
        self._setStatus(statusOfRun({"state": "done"}, self._record))
        self._end("done")

    def _failure(self, name: str, state: dict[str, Any]) -> Exception:
        if name == "stopped":
            return RunCancelled(_("The run was stopped on request."))
        if any(self.run.checkpoints.glob("*")):
            state = {**state, "remedy": _("What was learned so far is kept; resume the run to go on from there.")}
        elif self.run.log_file.exists():
            remedy = self._status.remedy or state.get("remedy") or ""
            state = {**state, "remedy": f"{remedy} {_('The log is {file}').format(file=self.run.log_file)}".strip()}
        return super()._failure(name, state)

    def _note(self, state: str, reason: str | None = None, remedy: str | None = None) -> None:
        """Write down how it has ended, where nobody else is left who would."""
        with contextlib.suppress(OSError, BadInput):  # the folder is gone; the status tells
            if self.run.path.is_dir():
                self.run.write_state(state=state, reason=reason, remedy=remedy)
        self._setStatus(RunStatus(state, reason=reason, remedy=remedy))

    def _cleanUp(self) -> None:
        if self._process is not None:
            self._process.waitForExit(0.05)
        super()._cleanUp()


def _killRun(run: RunFolder) -> bool:
    """Kill a run that is not our child; only when its process is certainly still that run. Returns whether nothing
    computes it any more."""
    state = run.state()
    if state["state"] not in ("running", "stopping"):
        return True
    if state["host"] != socket.gethostname():
        return False
    process = state["pid"]
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        if os.name == "nt":
            killTree(process)
        elif os.getpgid(process) == os.getsid(process):
            killTree(os.getpgid(process))
        else:  # of a shell, which may have begun a whole script in the same group
            os.kill(process, signal.SIGKILL)
    return True
