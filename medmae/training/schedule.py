"""Learning-rate schedules: linear warm-up and half a cosine, as in both papers; the one-cycle of the baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["warmup_cosine", "one_cycle"]


@dataclass(frozen=True)
class WarmupCosine:
    """Peak `rate` after `warmup` of the steps, `final_fraction` of it at the end."""

    rate: float
    total: int
    warmup: float = 0.1
    final_fraction: float = 0.0

    def at(self, step: int) -> float:
        """The learning rate of step `step` (from 0)."""
        warmup_steps = min(max(1, round(self.warmup * self.total)), self.total)
        if step < warmup_steps:
            return self.rate * (step + 1) / warmup_steps
        done = (step - warmup_steps + 1) / max(1, self.total - warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.rate * (self.final_fraction + (1 - self.final_fraction) * cosine)


@dataclass(frozen=True)
class OneCycle:
    """From a 25th of `rate` up to it along half a cosine for 30 % of the steps, then down to almost nothing.

    The defaults of torch's OneCycleLR, without its cycling of the momentum.
    """

    rate: float
    total: int
    rising: float = 0.3

    def at(self, step: int) -> float:
        """The learning rate of step `step` (from 0)."""
        peak = self.rising * self.total - 1
        if step <= peak:
            return self._between(self.rate / 25, self.rate, step / max(peak, 1))
        return self._between(self.rate, self.rate / 25e4, (step - peak) / max(self.total - 1 - peak, 1))

    @staticmethod
    def _between(start: float, end: float, done: float) -> float:
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def cosine_between(start: float, end: float, step: int, total: int) -> float:
    """A value that moves from `start` to `end` along half a cosine; used for the teacher's momentum."""
    done = min(1.0, step / max(1, total - 1))
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
