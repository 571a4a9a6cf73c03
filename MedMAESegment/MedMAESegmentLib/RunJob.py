"""Follow a run through its folder: progress, end, cancel; without ever blocking the event loop."""

from __future__ import annotations

import json
import logging
from typing import Any

from medmae.errors import BadInput
from medmae.jobs import told as telling
from medmae.run_folder import RunFolder
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed, asSentence, describe
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _

ENDED_STATES = ("done", "failed", "stopped", "interrupted", "cancelled")
_TAIL_BYTES = 65536


class RunJob(FollowedJob):
    """One run of the engine, ours or one found on disk; ``recorded(record)`` hands on each line of progress.jsonl."""

    def __init__(self, run: RunFolder, process: ChildProcess | None = None) -> None:
        super().__init__()
        self.run = run
        self.recorded = Signal()
        self._process = process
        # A run found on disk may have a long history, of which only the end matters here.
        size = run.progress_file.stat().st_size if run.progress_file.exists() else 0
        self._progressOffset = max(0, size - _TAIL_BYTES)

    def cancel(self) -> None:
        """End the run at once, with every process that it started; nothing of its result is taken."""
        if self._ended:
            return
        if self._process is not None:
            self._process.killTree()
        self.error = RunCancelled(_("Cancelled."))
        self._end("cancelled")

    def poll(self) -> bool:
        """Take in what is new on disk; True once the run has ended. Fast enough for any event loop."""
        if self._ended:
            return True
        exited = self._process is not None and not self._process.isRunning()
        self._readProgress()
        if self._ended:  # a progress callback has cancelled the run
            return True
        try:
            state = self._readState()
        except (BadInput, OSError, LookupError, TypeError):  # the folder was deleted or damaged
            if self._process is not None and not exited:
                return False  # or is being replaced at this moment: the child's end will tell
            text = _("The run folder {folder} was removed or damaged.")
            state = {"state": "failed", "reason": text.format(folder=self.run.path), "remedy": _("Start again.")}
        name = state["state"]
        if name == "interrupted" and self._process is not None and not exited:
            name = "running"  # silent for long, but alive: we are its parent and know better
        if exited and name not in ENDED_STATES or exited and name == "interrupted":
            name, state = "failed", self._withoutAWord()
        if name not in ENDED_STATES:
            self.state = name
            return False
        self._takeEnd(name, state)
        return True

    def _takeEnd(self, name: str, state: dict[str, Any]) -> None:
        try:
            if name == "done":
                self.result = self._takeResult()
            else:
                self.error = self._failure(name, state)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with the result belongs to the job's caller
            logging.getLogger(__name__).debug("Taking over the result failed", exc_info=True)
            self.error, name = error, "failed"
        self._end(name)

    def _readState(self) -> dict[str, Any]:
        """The state of the run; for subclasses."""
        return self.run.state()

    def _takeResult(self) -> Any:
        """What the job gives; for subclasses. The run is done."""
        return self.run.path

    def _failure(self, name: str, state: dict[str, Any]) -> Exception:
        if name == "stopped":
            return RunCancelled(_("The run was stopped on request."))
        reason, remedy = state.get("reason") or _("The run {state}.").format(state=name), state.get("remedy")
        if reason.startswith(("ModuleNotFoundError", "ImportError")):
            remedy = _("A Python package that the computation needs is missing or damaged. Restart Slicer and try "
                       "again; if it stays so, reinstall that package.")
        return RunFailed(" ".join(asSentence(part) for part in (reason, remedy) if part))

    def _withoutAWord(self) -> dict[str, Any]:
        """The state of a child that ended without writing one: killed, or unable to start."""
        code = self._process.exitCode if self._process is not None else None
        output = self._process.lastOutput() if self._process is not None else ""
        if output and not (code is not None and code < 0):
            text = _("The computation could not run (exit code {code}). Its last output was:\n{output}")
            return {"reason": text.format(code=code, output=output)}
        return {"reason": _("The computation ended without saying why (exit code {code}).").format(code=code),
                "remedy": _("The usual cause is too little memory: close other programs, or use a smaller image.")}

    def _readProgress(self) -> None:
        """Emit the complete new lines of progress.jsonl."""
        if not self.run.progress_file.exists():
            return
        with open(self.run.progress_file, "rb") as file:
            file.seek(self._progressOffset)
            text, newline, _rest = file.read().rpartition(b"\n")
        if not newline:
            return
        self._progressOffset += len(text) + 1
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # the first line after a seek into the middle, or no record
                continue
            if not isinstance(record, dict):
                continue
            record = telling.progress(record)  # it may come from another computer
            self.recorded.emit(record)
            if record.get("step") is not None and record.get("total"):
                self._progress(record["step"] / record["total"], describe(record))
