"""One finetuning run: follow it, stop it, take its model into the list; also after Slicer was closed meanwhile."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any

from MedMAESegmentLib.ChildProcess import ChildProcess, killTree
from MedMAESegmentLib.RunJob import RunJob

from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.home import models_folder
from medmae.run_folder import SILENT_AFTER_SECONDS, RunFolder

REQUEST_FILE = "slicer.json"
log = logging.getLogger(__name__)


class TrainingJob(RunJob):
    """Follows a run of kind "finetune"; its `result` is the name of the installed model.

    What Slicer wants done with the finished model stands in the run folder, so that the next Slicer can do it.
    """

    pollIntervalMs = 500
    endsWithCaller = False

    def __init__(self, run: RunFolder, process: ChildProcess | None = None) -> None:
        super().__init__(run, process)
        self._request = readRequest(run.path / REQUEST_FILE)

    @property
    def modelName(self) -> str:
        """The name that the finished model gets in the list of models."""
        return self._request["name"]

    def stop(self) -> None:
        """Ask the run to stop gracefully; what it has learned so far stays in its folder and can be continued."""
        self.run.request_stop()

    def cancel(self) -> None:
        """End the run at once, also one that an earlier Slicer has started."""
        if not self.ended and self._process is None:
            _killRun(self.run)
        super().cancel()

    def _readState(self) -> dict[str, Any]:
        state = super()._readState()
        if state["state"] == "queued" and self._process is None and (
                time.time() - state["updated"] > SILENT_AFTER_SECONDS):
            state.update(state="interrupted", reason="The process that should compute has never begun.")
        return state

    def _failure(self, name: str, state: dict[str, Any]) -> Exception:
        if any(self.run.checkpoints.glob("*")):
            remedy = f'What was learned so far is kept; go on with: medmae finetune --resume --out "{self.run.path}"'
            state = {**state, "remedy": remedy}
        elif self.run.log_file.exists():
            state = {**state, "remedy": f"{state.get('remedy') or ''} The log is {self.run.log_file}".strip()}
        return super()._failure(name, state)

    def _takeResult(self) -> str:
        from medmae.models import install_model

        self._request = readRequest(self.run.path / REQUEST_FILE)  # another Slicer may have been quicker
        if self._request["installed"] is None:
            folder = install_model(self.run.model, name=_freeName(self._request["name"]))
            self._request["installed"] = folder.name
            write_json(self.run.path / REQUEST_FILE, self._request)
        return self._request["installed"]

    def _cleanUp(self) -> None:
        if self._process is not None:
            self._process.waitForExit(0.05)
        if self.run.path.is_dir():
            try:
                write_json(self.run.path / REQUEST_FILE, {**self._request, "told": True})
            except OSError as error:  # then the next Slicer tells it again
                log.warning("The run %s could not be marked as seen: %s", self.run.path, error)


def writeRequest(run: RunFolder, name: str) -> None:
    """Note what Slicer will do with the model: the name that it gets.

    "installed" becomes the model's name in the list, "told" becomes true once a Slicer has seen how the run ended.
    """
    write_json(run.path / REQUEST_FILE, {"name": name, "installed": None, "told": False})


def readRequest(file: Path) -> dict[str, Any]:
    """What `writeRequest` has written.

    Raises:
        BadInput: it is damaged.
    """
    request = read_json(file, "request of MedMAETrain")
    if not isinstance(request, dict) or not {"name", "installed", "told"} <= set(request):
        raise BadInput(f"The request {file} is damaged. Remove its run, or install the model of the run by hand.")
    return request


def findJobs(folder: Path) -> list[TrainingJob]:
    """The runs in `folder` that MedMAETrain started and of which something is still to be said, oldest first.

    These are the runs under way, those whose models are not installed yet, and those that ended while no Slicer looked.
    """
    jobs = []
    for file in sorted(folder.glob(f"*/{REQUEST_FILE}")):  # by name, which begins with the time
        try:
            request, run = readRequest(file), RunFolder.open(file.parent)
            isOpen = not request["told"] or run.state()["state"] in ("running", "stopping", "done")
        except (BadInput, LookupError, TypeError) as error:  # one damaged run must not hide the others
            log.warning("The run %s is left out: %s", file.parent, error)
            continue
        if isOpen and request["installed"] is None:
            jobs.append(TrainingJob(run))
    return jobs


def _freeName(wanted: str) -> str:
    """`wanted`, with a number where a model of that name is installed already: nothing is ever replaced."""
    folder = models_folder()
    # Damaged models too keep their names, although they are not listed.
    taken = {entry.name.casefold() for entry in folder.iterdir()} if folder.is_dir() else set()
    names = (wanted if number == 1 else f"{wanted} {number}" for number in itertools.count(1))
    return next(name for name in names if name.casefold() not in taken)


def _killRun(run: RunFolder) -> None:
    """Kill a run that is not our child; only when its process is certainly still that run."""
    state = run.state()
    if state["state"] in ("running", "stopping") and state["host"] == socket.gethostname():
        killTree(state["pid"] if os.name == "nt" else os.getpgid(state["pid"]))
