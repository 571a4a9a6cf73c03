"""Telling the plan of an image once its first windows are computed, on which memory and time are measured.

A pass for planning alone would double the time of an image of one window.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from medmae.inference.plan import Plan, Work, plan

OnPlan = Callable[[Plan], None]


class PlanTelling:
    """Tells a plan once.

    Args:
        work: what is to be done.
        chosen: the plan, where a limit of memory made it necessary before; None: made when a pass was measured.
        tell: called with the plan.
    """

    def __init__(self, work: Work, chosen: Plan | None, tell: OnPlan) -> None:
        self.work = work
        self._chosen = chosen
        self._tell = tell
        self._told = False
        self.begin()

    def begin(self) -> None:
        """The first window is about to be computed."""
        self._begun = time.monotonic()

    def computed(self, windows: int, pass_bytes: int | None) -> None:
        """So many windows went through the network, and a pass of a whole batch took `pass_bytes`, if known yet."""
        if self._told or not windows or (self._chosen is None and pass_bytes is None):
            return
        chosen = self._chosen or plan(self.work, lambda window, batch: pass_bytes or 0)
        self._told = True
        self._tell(chosen.timed(windows, time.monotonic() - self._begun))
