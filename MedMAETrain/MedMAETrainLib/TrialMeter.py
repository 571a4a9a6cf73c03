"""What a trial measures, from the progress records of its run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

FEW_STEPS, FEW_SECONDS = 4, 4.0  # that many steps which take that long together tell enough
MANY_STEPS, LONG_SECONDS = 24, 45.0  # or so many, or so long
_TRAINING = ("train", "training")


@dataclass(frozen=True)
class TrialResult:
    """How long a run will take, and what it needs.

    seconds - Of the whole run, without scoring validation cases.
    steps - Of the whole run.
    secondsPerStep - Of training.
    memoryBytes - The most that was held at once; None: not known. Of the graphics card where `device` is one.
    freeBytes - Main memory that was free on this computer before; None: not known, or computed elsewhere.
    device - "cpu", "cuda:0", ...; "": not known.
    target - Where it was measured; "": here.
    """

    seconds: float
    steps: int
    secondsPerStep: float
    memoryBytes: int | None = None
    freeBytes: int | None = None
    device: str = ""
    target: str = ""


class TrialMeter:
    """Takes records until they suffice.

    Attributes:
        scale: how many times as many cases the whole run prepares.
    """

    def __init__(self, target: str, freeBytes: int | None) -> None:
        self.scale = 1.0
        self._target, self._freeBytes = target, freeBytes
        self._began = time.monotonic()
        self._prepared: tuple[float, float] | None = None  # when its first and last record came
        self._first: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._startUp, self._memory, self._device = 0.0, 0, ""

    def add(self, record: dict[str, Any]) -> None:
        """Take a record of progress.jsonl."""
        now = time.monotonic()
        if isinstance(record.get("memory_bytes"), int):
            self._memory = max(self._memory, record["memory_bytes"])
        self._device = str(record.get("device") or self._device)
        if record.get("stage", _TRAINING[0]) not in _TRAINING:
            self._prepared = (self._prepared[0] if self._prepared else now, now)
        elif isinstance(record.get("step"), int) and isinstance(record.get("seconds"), (int, float)):
            if self._first is None:
                self._first = record
                self._startUp = now - self._began
            self._last = record

    @property
    def isEnough(self) -> bool:
        """Whether more steps would tell nothing more."""
        steps, seconds = self._measured()
        return steps >= MANY_STEPS or (steps >= FEW_STEPS and seconds >= FEW_SECONDS) or (
            steps >= 1 and seconds >= LONG_SECONDS)

    def result(self) -> TrialResult | None:
        """What was measured; None: nothing."""
        steps, seconds = self._measured()
        if self._last is None or not steps:
            return None
        total, perStep = int(self._last.get("total") or 0), seconds / steps
        preparing = self._prepared[1] - self._prepared[0] if self._prepared else 0.0
        before = max(self._startUp - preparing, 0.0) + preparing * self.scale
        return TrialResult(before + total * perStep, total, perStep, self._memory or None, self._freeBytes,
                           self._device, self._target)

    def _measured(self) -> tuple[int, float]:
        """Steps and how long they took; without the first one, which takes longer, where there are others."""
        if self._first is None or self._last is None:
            return 0, 0.0
        if self._last["step"] == self._first["step"]:
            return (int(self._last["step"]), float(self._last["seconds"])) if self._last["step"] > 0 else (0, 0.0)
        return self._last["step"] - self._first["step"], self._last["seconds"] - self._first["seconds"]
