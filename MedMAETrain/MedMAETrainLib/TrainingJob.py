"""One finetuning run: follow it, stop it, take its model into the list; also after Slicer was closed meanwhile."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

from MedMAESegmentLib.ChildProcess import ChildProcess, killTree
from MedMAESegmentLib.RunJob import RunJob

from medmae.files import read_json, write_json
from medmae.run_folder import RunFolder

REQUEST_FILE = "slicer.json"


class TrainingJob(RunJob):
    """Follows a run of kind "finetune"; its `result` is the name of the installed model.

    What Slicer wants done with the finished model stands in the run folder, so that the next Slicer can do it.
    """

    pollIntervalMs = 500
    endsWithCaller = False

    def __init__(self, run: RunFolder, process: ChildProcess | None = None) -> None:
        super().__init__(run, process)
        self._request = read_json(run.path / REQUEST_FILE, "request of MedMAETrain")

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

    def _takeResult(self) -> str:
        from medmae.models import install_model

        if self._request["installed"] is None:
            _keepLook(self.run.model, self._request["labels"])
            folder = install_model(self.run.model, name=_freeName(self._request["name"]))
            self._request["installed"] = folder.name
            write_json(self.run.path / REQUEST_FILE, self._request)
        return self._request["installed"]

    def _cleanUp(self) -> None:
        if self._process is not None:
            self._process.waitForExit(0.05)


def writeRequest(run: RunFolder, name: str, labels: list[dict]) -> None:
    """Note what Slicer will do with the model: its name, and the looks of the segments it was trained on."""
    write_json(run.path / REQUEST_FILE, {"name": name, "labels": labels, "installed": None})


def findJobs(folder: Path) -> list[TrainingJob]:
    """The runs in `folder` that MedMAETrain started and whose models it has not installed yet, oldest first."""
    jobs = []
    for request in sorted(folder.glob(f"*/{REQUEST_FILE}"), key=lambda file: file.stat().st_mtime):
        run = RunFolder.open(request.parent)
        alive = run.state()["state"] in ("queued", "running", "stopping", "done")
        if alive and read_json(request)["installed"] is None:
            jobs.append(TrainingJob(run))
    return jobs


def _freeName(wanted: str) -> str:
    """`wanted`, with a number where a model of that name is installed already: nothing is ever replaced."""
    from medmae.models import list_models

    taken = {name.casefold() for name, _ in list_models()}
    names = (wanted if number == 1 else f"{wanted} {number}" for number in itertools.count(1))
    return next(name for name in names if name.casefold() not in taken)


def _keepLook(model: Path, labels: list[dict]) -> None:
    """Give the labels of the model the colours and terminology that the user's segments had."""
    from medmae.volumes.terminology import from_slicer_text

    info = read_json(model / "model.json", "model")
    looks = {label["name"]: label for label in labels}
    for label in info["labels"]:
        look = looks.get(label["name"])
        if look is not None:
            label["color"] = look["color"]
            label["terminology"] = from_slicer_text(look["terminology"]) or label["terminology"]
    write_json(model / "model.json", info)


def _killRun(run: RunFolder) -> None:
    """Kill a run that is not our child; only when its process is certainly still that run."""
    state = run.state()
    if state["state"] in ("running", "stopping") and state["host"] == socket.gethostname():
        killTree(state["pid"] if os.name == "nt" else os.getpgid(state["pid"]))
