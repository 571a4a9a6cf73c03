"""Jobs that another computer submitted: found on their target, and followed, stopped, resumed and fetched from here."""

from __future__ import annotations

from typing import Any

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.jobs.calling import operate
from medmae.jobs.job import ID, RECORD, Job, load_job, mirror_of
from medmae.jobs.target import Target

KNOWN_THERE = ("id", "kind", "created", "parts")  # of a job; its name and its own paths stay with who submitted it


def jobs_on(target: Target) -> list[Job]:
    """All jobs in the folder of MedMAE on a target, with their ids for names; nothing is written here.

    Raises:
        TargetProblem: it cannot be asked.
    """
    if target.kind == "local":
        return []
    told = operate(target, "runs.listing", {"folder": target.folder})["runs"]
    return [job for entry in told if (job := _job(target, entry)) is not None]


def attach(job_id: str, target: Target) -> Job:
    """The job `job_id` (or the only one whose id begins or ends so) of a target, which is followed here from now on.

    Raises:
        BadInput: it is not there.
        TargetProblem: the target cannot be asked.
    """
    if ID.fullmatch(job_id) and (mirror_of(job_id) / RECORD).is_file():
        return load_job(job_id)
    found = [job for job in jobs_on(target) if job_id and (job.id.startswith(job_id) or job.id.endswith(job_id))]
    if len(found) != 1:
        raise BadInput(f"{'Several jobs' if found else 'No job'} on {target.name} {'are' if found else 'is'} meant by "
                       f"{job_id!r}. See: medmae job list --target {target.name}")
    job = found[0]
    if not (job.mirror / RECORD).is_file():
        write_json(job.mirror / "spec.json", {"medmae": "", "kind": job.kind, "config": {}, "inputs": {}})
        job.save()
    return job.refreshed()


def _job(target: Target, entry: dict[str, Any]) -> Job | None:
    """A job as its target tells it; None where that is not in order."""
    record = {name: entry["job"].get(name) for name in KNOWN_THERE}
    try:
        job = from_json(Job, {**record, "name": record["id"], "target": {"name": target.name}, "folder": entry["run"]},
                        "record of a job")
        mirror_of(job.id)
    except BadInput:
        return None
    import dataclasses

    return dataclasses.replace(job, target=target)
