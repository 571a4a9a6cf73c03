"""How a run of training stands, the same for one of this computer and one of another."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.jobs import told as telling
from medmae.run_folder import SILENT_AFTER_SECONDS, RunFolder, process_start
from MedMAETrainLib.RunNames import ownNames

STATES = ("waiting", "submitting", "queued", "running", "stopping", "stopped", "done", "failed", "interrupted",
          "unreachable")
FINAL = ("stopped", "done", "failed", "interrupted")
WAITING_MARK = "WAITING"  # a file in the folder of a run that is in the queue
_END_OF_PROGRESS = 8192  # bytes


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    state - waiting (for runs before it on this computer), submitting (its data is on the way to a target), queued
      (its process, or a scheduler, has not begun), running, stopping, stopped, done, failed, interrupted (it ended
      without a word), unreachable (its target does not answer; it goes on meanwhile).
    stage - What is being done: "prepare", "train", ...; of a submission "connecting", "upload", ...
    step, total - Of the stage, where it is counted.
    etaSeconds - Time left, where that can be told.
    device - What computes, where it is known: "cpu", "cuda:0".
    queue - What a scheduler says, such as "PENDING (Resources)".
    reason, remedy - Why it is so, and what to do about it, in sentences.
    lastState - What it was when it was last seen, where it is unreachable.
    seen - When its target has answered last, in seconds since 1970.
    """

    state: str
    stage: str | None = None
    step: int | None = None
    total: int | None = None
    etaSeconds: float | None = None
    device: str | None = None
    queue: str | None = None
    reason: str | None = None
    remedy: str | None = None
    lastState: str | None = None
    seen: float | None = None

    @property
    def isFinal(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self.state in FINAL

    @property
    def fraction(self) -> float:
        """How much of the stage is done, from 0 to 1; of a run that is done 1."""
        if self.state == "done":
            return 1.0
        return min(max(self.step / self.total, 0.0), 1.0) if self.step and self.total else 0.0


def stateOfRun(run: RunFolder) -> dict[str, Any]:
    """The state of a run of this computer: as `RunFolder.state`, with what only its starter knows.

    Raises:
        BadInput, OSError: it cannot be read.
    """
    state = run.state()
    if state["state"] not in STATES:
        raise BadInput(_("The run state {file} is damaged.").format(file=run.state_file))
    if state["state"] == "queued" and (run.path / WAITING_MARK).exists():
        state["state"] = "waiting"
    elif state["state"] == "queued" and time.time() - state["updated"] > SILENT_AFTER_SECONDS:
        state.update(state="interrupted", reason=_("The process that should compute has never begun."),
                     remedy=_("Resume the run."))
    elif state["state"] == "interrupted" and _isAlive(run):
        state.update(state="running", reason=None, remedy=None)
    if state["state"] == "running" and run.stop_requested:
        state["state"] = "stopping"
    return state


def _isAlive(run: RunFolder) -> bool:
    """Whether the process of a run that was silent for long certainly lives: the computer may have slept."""
    written = read_json(run.state_file, "run state")
    began = written["pid_start"]  # 0 where the system does not tell
    return bool(written["state"] in ("running", "stopping") and began and written["host"] == socket.gethostname()
                and process_start(written["pid"]) == began)


def statusOfRun(state: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> RunStatus:
    """The status of a run of this computer from its state and its last record of progress."""
    found = record if record and state["state"] not in FINAL else {}
    counted = found if "step" in found else state
    return RunStatus(state["state"], stage=telling.text(found.get("stage")), step=telling.whole(counted.get("step")),
                     total=telling.whole(counted.get("total")), etaSeconds=telling.seconds(found.get("eta_s")),
                     device=telling.text((record or {}).get("device")),
                     reason=inWordsOfThePanel(state.get("reason")), remedy=inWordsOfThePanel(state.get("remedy")))


def readStatus(run: RunFolder) -> RunStatus:
    """The status of a run of this computer, from its folder.

    Raises:
        BadInput, OSError: it cannot be read.
    """
    return statusOfRun(stateOfRun(run), lastRecord(run))


def lastRecord(run: RunFolder) -> dict[str, Any]:
    """The last record of a run's progress that counts something; empty where there is none. Another computer may have
    written it."""
    try:
        with open(run.progress_file, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END_OF_PROGRESS))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return {}
    for line in reversed(lines):
        try:
            record = telling.progress(json.loads(line))
        except (ValueError, RecursionError):  # the first line, of which the beginning is missing, or no record
            continue
        if record.get("step") is not None:
            return record
    return {}


def statusOfJob(status: Any, mirror: Path) -> RunStatus:
    """The status of a job from what `medmae.jobs.following` says; `mirror` is its folder here."""
    return RunStatus(status.state, stage=status.stage, step=status.step, total=status.total, etaSeconds=status.eta_s,
                     queue=status.queue, reason=inWordsOfThePanel(status.reason and ownNames(mirror, status.reason)),
                     remedy=inWordsOfThePanel(status.remedy), lastState=status.last_state, seen=status.seen)
