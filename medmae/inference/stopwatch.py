"""Seconds of the stages of some work, one after the other."""

from __future__ import annotations

import time


class Stopwatch:
    """Runs from when it is made.

    Attributes:
        laps: seconds by stage.
    """

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begun = self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        """The stage that began with the last lap ends now."""
        now = time.monotonic()
        self.laps[stage] = round(now - self._last, 3)
        self._last = now

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return round(time.monotonic() - self._begun, 3)
