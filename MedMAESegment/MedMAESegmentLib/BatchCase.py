"""The cases of a batch, and how each of them stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _

CaseState = Literal["waiting", "running", "done", "failed", "cancelled"]
_OPEN = ("waiting", "running")


@dataclass
class BatchCase:
    """How a case stands.

    name - Of the volume or file.
    state - waiting, running, done, failed or cancelled.
    message - How far it is, or why it failed.
    result - The vtkMRMLSegmentationNode, or the file; None until done.
    seconds - What it took; None until it has ended, or where it is not known.
    wasDoneBefore - Whether an earlier batch has done it, so that this one has not.
    """

    name: str
    state: CaseState = "waiting"
    message: str = ""
    result: Any | Path | None = None
    seconds: float | None = None
    wasDoneBefore: bool = False


class CaseBook:
    """Keeps the cases of a job, and tells what changes: ``changed(index)``.

    secondsLeft - Until all are done; None where it is not known yet.
    told - What is to be said of the whole instead of its cases; mostly nothing.
    """

    def __init__(self, cases: list[BatchCase]) -> None:
        self.cases = cases
        self.changed = Signal()
        self.secondsLeft: float | None = None
        self.told = ""

    def note(self, index: int, **changes: Any) -> None:
        """Change a case, and tell so."""
        for name, value in changes.items():
            setattr(self.cases[index], name, inWordsOfThePanel(value) if name == "message" else value)
        self.changed.emit(index)

    def noteDoneBefore(self, index: int, result: Any, seconds: float | None = None) -> None:
        """An earlier batch has done this case."""
        self.note(index, state="done", message=_("Was segmented before."), result=result, seconds=seconds,
                  wasDoneBefore=True)

    @property
    def running(self) -> int | None:
        """The index of the case that is being segmented; of several the last."""
        return max((index for index, case in enumerate(self.cases) if case.state == "running"), default=None)

    @property
    def following(self) -> int | None:
        """The index of the next case that waits."""
        return next((index for index, case in enumerate(self.cases) if case.state == "waiting"), None)

    def cancelOpen(self) -> None:
        """What has not ended is not going to be done."""
        for index, case in enumerate(self.cases):
            if case.state in _OPEN:
                self.note(index, state="cancelled", message="")


def summaryOf(cases: list[BatchCase]) -> str:
    """How many cases are done and failed, in words."""
    failed = [case for case in cases if case.state == "failed"]
    done = sum(case.state == "done" for case in cases)
    if not failed:
        return _("{done} of {count} cases are done.").format(done=done, count=len(cases))
    text = _("{done} of {count} cases are done, {failed} failed:").format(
        done=done, count=len(cases), failed=len(failed))
    return "\n".join([text, *(f"{case.name}: {case.message}" for case in failed)])
