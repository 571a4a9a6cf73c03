"""The learning-rate schedule: linear warm-up, then half a cosine to zero, as in both papers."""

from __future__ import annotations

import math
from dataclasses import dataclass


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


def cosine_between(start: float, end: float, step: int, total: int) -> float:
    """A value that moves from `start` to `end` along half a cosine; used for the teacher's momentum."""
    done = min(1.0, step / max(1, total - 1))
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
