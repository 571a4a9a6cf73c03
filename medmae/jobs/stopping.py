"""Stopping jobs, and going on with them."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

from medmae.errors import BadInput
from medmae.jobs.calling import operate
from medmae.jobs.following import Status, follow
from medmae.jobs.job import Job
from medmae.jobs.problems import TargetProblem
from medmae.jobs.submission import begin, give_up, note_begun, note_stopped, submission_of

GRACE_SECONDS = 10.0
UNDER_WAY = ("submitting", "queued", "running", "stopping")


def stop(job: Job, hard: bool = False) -> bool:
    """Ask a job to stop; a run keeps what it has computed as a checkpoint. Returns whether there was something to stop.

    Args:
        job: which.
        hard: end its processes now; they have a few seconds for a checkpoint.

    Raises:
        TargetProblem: the target cannot be asked.
    """
    job = job.refreshed()
    was_submitting = not submission_of(job).is_over
    if was_submitting:
        give_up(job)
    submission = submission_of(job)
    if submission.is_over and submission.stage != "done":
        return was_submitting
    if was_submitting and submission.stage != "done":  # ended in the moment in which the run begins
        job = job.refreshed()
        if not operate(job.target, "runs.stop", {"run": job.folder})["asked"]:
            note_stopped(job)
            return True
        note_begun(job)
    if hard:
        killed = operate(job.target, "runs.kill", {"run": job.folder, "grace_s": GRACE_SECONDS})
        return bool(killed.get("ended", True))
    return bool(operate(job.target, "runs.stop", {"run": job.folder})["asked"])


def resume(job: Job, **changes: Any) -> Job:
    """Go on with a submission that was interrupted, or with a run from its checkpoint.

    Args:
        job: which.
        changes: of the target for this job: gpus, nodes, time, partition, host and so on.

    Raises:
        BadInput: the job is under way or done, or the changes cannot be.
        TargetProblem: the target cannot be asked whether the run is under way.
    """
    job = job.refreshed()
    status = follow(job)
    if status.state == "unreachable":
        raise TargetProblem("connection lost", status.reason or "", status.remedy or "")
    _refuse(job, status)
    try:
        target = dataclasses.replace(job.target, **changes)
    except ValueError as error:
        raise BadInput(f"The job cannot go on with these options: {error}.") from None
    job = job.replace(target=target)
    begin(job)
    return job


def remove(job: Job) -> None:
    """Delete a job and its folders, here and on its target.

    Raises:
        BadInput: it is under way.
        TargetProblem: the target cannot be reached; nothing is deleted.
    """
    if submission_of(job).is_alive:
        raise BadInput(f"The job {job.id} is being submitted. Stop it first: medmae job stop {job.id}")
    job = job.refreshed()
    if job.folder is not None:
        operate(job.target, "runs.remove", {"run": job.folder})
    shutil.rmtree(job.mirror, ignore_errors=True)


def _refuse(job: Job, status: Status) -> None:
    if status.state in UNDER_WAY:
        raise BadInput(f"The job {job.id} is {status.state} already. Wait for it, or stop it first: medmae job stop "
                       f"{job.id}")
    if status.state == "done":
        raise BadInput(f"The job {job.id} is done; there is nothing to go on with. Fetch its results: medmae job fetch "
                       f"{job.id}")
