"""What a training run says about itself: one progress line a step, an estimate of the time left, a live state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from medmae.run_folder import RunFolder
from medmae.training.memory import peak_memory_bytes

FLUSH_SECONDS = 1.0


def stage_reporter(run: RunFolder, stage: str) -> Callable[[int, int], None]:
    """A function that notes (done, total) of a stage before training in the run's progress."""
    def report(done: int, total: int) -> None:
        run.append_progress({"stage": stage, "step": done, "total": total})

    return report


class ProgressWriter:
    """Collects each step's figures on the device and writes them about once a second.

    Waiting for a GPU to hand over a number every step would slow it down; a delay of a second hurts nobody. `watch` is
    called with each record as it is written. Records tell `device` and the peak of memory, there where it is a GPU.
    """

    def __init__(self, run: RunFolder, total: int, start: int, device: torch.device,
                 watch: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        self._run = run
        self._watch = watch
        self._device = device
        self._total = total
        self._start = start
        self._begun = time.monotonic()
        self._flushed = self._begun
        self._waiting: list[tuple[dict[str, Any], dict[str, torch.Tensor]]] = []

    def add(self, step: int, figures: Mapping[str, torch.Tensor], **known: Any) -> None:
        """Note the figures of training step `step` (from 0); it is reported as step + 1 steps done."""
        seconds = time.monotonic() - self._begun
        done = step + 1 - self._start
        record = {"step": step + 1, "total": self._total, "seconds": round(seconds, 3),
                  "eta_s": round(seconds / done * (self._total - step - 1), 3), **known}
        self._waiting.append((record, dict(figures)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write everything noted so far.

        Raises:
            FloatingPointError: a loss is not finite; the run must not go on as if it were training.
        """
        memory = peak_memory_bytes(self._device) if self._waiting else None
        known = {"device": str(self._device)} | ({} if memory is None else {"memory_bytes": memory})
        for record, figures in self._waiting:
            record |= known
            values = {name: float(value) for name, value in figures.items()}
            broken = [name for name, value in values.items() if not math.isfinite(value)]
            if broken:
                raise FloatingPointError(f"{', '.join(broken)} became infinite or NaN at step {record['step']}.")
            self._run.append_progress(record | values)
            if self._watch:
                self._watch(record | values)
        if self._waiting:
            last = self._waiting[-1][0]
            self._run.write_state(step=last["step"], total=self._total)
        self._waiting.clear()
        self._flushed = time.monotonic()
