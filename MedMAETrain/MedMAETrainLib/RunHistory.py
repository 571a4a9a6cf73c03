"""What a run has told of its training so far: curves by step, read from its progress file little by little."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORES = {"validation_dice": "Dice", "validation_auc": "AUC"}  # what a validation is judged by, as users call it
LOSS, RATE = "loss", "lr"
_CURVES = (LOSS, RATE, *SCORES)
_BYTES_AT_ONCE = 1 << 14
_LARGEST = 1e300  # neither infinite nor too large to be drawn
_LONGEST_LINE = 1 << 20  # what is longer was not written by a run


class Curve:
    """Values by step, in order of the steps; of a step that is told twice (after a resume) the last value counts."""

    def __init__(self) -> None:
        self._steps: NDArray[np.float64] = np.empty(256)
        self._values: NDArray[np.float64] = np.empty(256)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def steps(self) -> NDArray[np.float64]:
        """(N,), rising."""
        return self._steps[:self._count]

    @property
    def values(self) -> NDArray[np.float64]:
        """(N,), of `steps`."""
        return self._values[:self._count]

    def put(self, step: float, value: float) -> None:
        """Add a value, or replace that of the step."""
        place = self._count
        if place and step <= self._steps[place - 1]:
            place = int(np.searchsorted(self.steps, step))
            if self._steps[place] == step:
                self._values[place] = value
                return
        if self._count == len(self._steps):
            size = 2 * self._count
            self._steps, self._values = np.resize(self._steps, size), np.resize(self._values, size)
        end = self._count
        self._steps[place + 1:end + 1] = self._steps[place:end]
        self._values[place + 1:end + 1] = self._values[place:end]
        self._steps[place], self._values[place] = step, value
        self._count += 1


class RunHistory:
    """Follows the progress file of a run, here or its mirror, and keeps what curves and summaries need.

    >>> history = RunHistory(run.progress_file)
    >>> while history.read():  # in turns of the event loop
    ...     pass
    >>> history.curves["loss"].values[-1]

    curves - By the names in the file: "loss", "lr", "validation_dice", "validation_auc".
    validation - The last record with a score.
    offset - Bytes of the file that were taken in.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._forget()

    def _forget(self) -> None:
        self.curves: dict[str, Curve] = {name: Curve() for name in _CURVES}
        self.validation: dict[str, Any] = {}
        self._before = self._seconds = 0.0  # of attempts before a resume, of this one
        self.offset = 0
        self._rest = b""

    @property
    def seconds(self) -> float | None:
        """How long it has trained, all attempts together."""
        return self._before + self._seconds or None

    @property
    def score(self) -> str | None:
        """The curve that the run is judged by, where it has any value yet."""
        return next((name for name in SCORES if len(self.curves[name])), None)

    def read(self, seconds: float = 0.02) -> bool:
        """Take in what is new, for about `seconds` at most; whether there is more to be read at once."""
        deadline = time.perf_counter() + seconds
        try:
            if self.file.stat().st_size < self.offset:  # it was written anew
                self._forget()
            with open(self.file, "rb") as stream:
                stream.seek(self.offset)
                while block := stream.read(_BYTES_AT_ONCE):
                    self.offset += len(block)
                    self._take(block)
                    if time.perf_counter() > deadline:
                        return True
        except FileNotFoundError:  # nothing is told yet, or the run was removed
            return False
        return False

    def _take(self, block: bytes) -> None:
        *lines, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._rest = b""
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # half a line of a process that was killed, or no record
                continue
            if isinstance(record, dict):
                self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        step = _number(record, "step")
        if step is None or LOSS not in record and record.get("stage") not in (None, "train", "validation"):
            return  # of preparing data
        for name, curve in self.curves.items():
            value = _number(record, name)
            if value is not None:
                curve.put(step, value)
        if any(name in record for name in SCORES):
            self.validation = record
        seconds = _number(record, "seconds")
        if seconds is not None:
            if seconds < self._seconds:  # the clock of the next attempt, or of the next fold
                self._before += self._seconds
            self._seconds = seconds


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -_LARGEST < value < _LARGEST:
        return None
    return float(value)
