"""How a run of training stands, the same for one of this computer and one of another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from MedMAESegmentLib.Translation import tr as _

STATES = ("waiting", "submitting", "queued", "running", "stopping", "stopped", "done", "failed", "interrupted",
          "unreachable")
FINAL = ("stopped", "done", "failed", "interrupted")
_COMMAND = re.compile(r"\b(?:(continue|go on)(?: \w+){0,3}? with:?|then:) (?:--resume|medmae job resume [\w-]+)", re.I)


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


def statusOfRun(state: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> RunStatus:
    """The status of a run of this computer from its state.json and its last record of progress."""
    counted = record if record and "step" in record and state["state"] not in FINAL else state
    found = record or {}
    return RunStatus(state["state"], stage=found.get("stage"), step=counted.get("step"), total=counted.get("total"),
                     etaSeconds=None if state["state"] in FINAL else found.get("eta_s"), device=found.get("device"),
                     reason=inWordsOfThePanel(state.get("reason")),
                     remedy=inWordsOfThePanel(state.get("remedy")))


def statusOfJob(status: Any) -> RunStatus:
    """The status of a job from what `medmae.jobs.following` says."""
    return RunStatus(status.state, stage=status.stage, step=status.step, total=status.total, etaSeconds=status.eta_s,
                     queue=status.queue, reason=inWordsOfThePanel(status.reason),
                     remedy=inWordsOfThePanel(status.remedy), lastState=status.last_state)


def inWordsOfThePanel(text: str | None) -> str | None:
    """What the engine says, with "resume the run" for a command of the shell that goes on with it."""
    def words(found: re.Match[str]) -> str:
        if found[1] is None:
            return _("then resume the run")
        return _("Resume the run") if found[1][0].isupper() else _("resume the run")

    return text and _COMMAND.sub(words, text)
