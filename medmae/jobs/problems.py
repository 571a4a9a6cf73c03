"""What can be wrong with a target, each with what to do about it."""

from __future__ import annotations

from medmae.jobs.told import printable

# By themselves: a laptop that slept, a network that was gone, a computer that starts again.
MAY_PASS = {"connection lost", "timed out", "no route", "refused", "name not resolved"}


class TargetProblem(Exception):
    """A target cannot be used as asked: nothing is wrong with the user's data, and a job there may be well.

    Args:
        code: short and stable, for programs: "unknown host key", "refused", "no Python", ...
        finding: what happened, in a sentence.
        remedy: what to do, in a sentence.
    """

    def __init__(self, code: str, finding: str, remedy: str) -> None:
        self.code = code
        self.finding = printable(finding)  # what the other side said is often part of it
        self.remedy = printable(remedy)
        super().__init__(f"{self.finding} {self.remedy}".strip())

    @property
    def may_pass(self) -> bool:
        """Whether the same may work later with nothing changed."""
        return self.code in MAY_PASS


class ConnectionLost(TargetProblem):
    """The connection ended in the middle of work; the same work may be tried again."""


def odd_answer(where: str) -> TargetProblem:
    """What came back is nothing that MedMAE says, whoever said it."""
    return TargetProblem("odd answer", f"{where} answers what MedMAE never says, so that nothing of it was taken.",
                         "Look into the folder of the run there: it may be damaged, or somebody may have changed it.")
