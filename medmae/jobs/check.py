"""One finding about a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medmae.jobs.problems import TargetProblem
from medmae.jobs.told import printable


@dataclass(frozen=True)
class Check:
    """One finding: "failed" means that jobs cannot run there, "warning" that something is slow or odd.

    Args:
        name: what was looked at.
        outcome: how it is.
        finding: what was found.
        remedy: what to do; empty if it is well.
        code: as of `TargetProblem`; empty if it is well.
    """

    name: str
    outcome: Literal["ok", "warning", "failed"]
    finding: str
    remedy: str = ""
    code: str = ""

    def __post_init__(self) -> None:
        for name in ("finding", "remedy"):  # what the other side said is part of them
            object.__setattr__(self, name, printable(getattr(self, name)))

    @classmethod
    def of(cls, name: str, problem: TargetProblem) -> Check:
        """A failure that was raised."""
        return cls(name, "failed", problem.finding, problem.remedy, problem.code)
