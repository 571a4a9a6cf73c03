"""Deleting what jobs have left behind on a target: images and models that no run there needs any more."""

from __future__ import annotations

from dataclasses import dataclass

from medmae.errors import BadInput
from medmae.jobs import told as telling
from medmae.jobs.calling import operate
from medmae.jobs.job import list_jobs
from medmae.jobs.problems import odd_answer
from medmae.jobs.submission import submission_of
from medmae.jobs.target import Target

SILENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Cleaned:
    """How many files on the target are gone and how many are needed, and their bytes."""

    removed: int
    removed_bytes: int
    kept: int
    kept_bytes: int


def clean(target: Target) -> Cleaned:
    """Delete the images and models on `target` that no run folder there holds.

    Raises:
        BadInput: the target is this computer, where jobs read files where they are, or a job is being submitted to it.
        TargetProblem: the target cannot be reached, or talks nonsense.
    """
    if target.kind == "local":
        raise BadInput(f"Jobs of {target.name} read files where they are; there is nothing to clean.")
    for job in list_jobs():
        is_there = (job.target.host, job.target.folder) == (target.host, target.folder)
        if is_there and not job.runs_here and submission_of(job).is_alive:
            raise BadInput(f"The job {job.id} is being submitted to {target.name}, and its files are on their way. "
                           "Wait for it, then clean.")
    answer = operate(target, "data.clean", {"folder": target.folder}, SILENCE_SECONDS)
    numbers = [telling.whole(number) for name in ("removed", "kept") for number in _pair(answer.get(name))]
    if len(numbers) != 4 or None in numbers:
        raise odd_answer(target.name)
    return Cleaned(*(number or 0 for number in numbers))


def _pair(value: object) -> list[object]:
    return value if isinstance(value, list) else []
