"""A job: a run on a target, as this computer remembers it (``HOME/runs/ID/job.json``)."""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.home import runs_folder
from medmae.jobs.target import Target
from medmae.run_folder import Kind

RECORD = "job.json"
NAME = re.compile(r"\w[\w .+-]{0,99}")  # as models in the registry are called
ID = re.compile(r"\d{8}-\d{6}-[a-z]+-[0-9a-f]{4}")


@dataclass(frozen=True)
class Job:
    """What was submitted, and where it is.

    Args:
        id: of the job; also the name of its folders here and there.
        name: what the user calls it, and its model in the registry.
        kind: what the run does.
        target: where it runs, as the target was when the job was last started.
        folder: the run folder there, absolute; None until it has been made.
        created: when it was submitted, in seconds since 1970.
        out: where its results go; None: the mirror.
        parts: processes that share the cases of a segmentation.
    """

    id: str
    name: str
    kind: Kind
    target: Target
    created: float
    folder: str | None = None
    out: str | None = None
    parts: int | None = None

    @property
    def mirror(self) -> Path:
        """The run folder here: the run itself where the target is this computer, else what is known of it."""
        return mirror_of(self.id)

    @property
    def runs_here(self) -> bool:
        """Whether `mirror` is the run folder itself."""
        return self.target.kind == "local"

    def refreshed(self) -> Job:
        """The job as its record is now; the process that submits it writes there."""
        return _read(self.mirror)

    def save(self) -> None:
        """Write the record."""
        write_json(self.mirror / RECORD, to_json(self))

    def replace(self, **changes: object) -> Job:
        """The same job with other values, saved."""
        changed = dataclasses.replace(self, **changes)  # type: ignore[arg-type]
        changed.save()
        return changed


def new_id(kind: Kind) -> str:
    """An id that no other job has."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{kind}-{secrets.token_hex(2)}"


def mirror_of(job_id: str) -> Path:
    """The folder of a job here.

    Raises:
        BadInput: that is not the form of an id, so that nothing outside of the folder of runs can be named.
    """
    if not ID.fullmatch(job_id):
        raise BadInput(f"{job_id!r} is not the id of a job. See: medmae job list.")
    return runs_folder() / job_id


def load_job(job_id: str) -> Job:
    """The job called `job_id`, or the only one whose id or name begins or ends so.

    Raises:
        BadInput: there is none, or several.
    """
    if ID.fullmatch(job_id) and (mirror_of(job_id) / RECORD).is_file():
        return _read(mirror_of(job_id))
    jobs = list_jobs()
    found = [job for job in jobs if job.name == job_id] or [
        job for job in jobs if job_id and (job.id.startswith(job_id) or job.id.endswith(job_id))]
    if len(found) > 1:
        raise BadInput(f"Several jobs are meant by {job_id!r}: {', '.join(job.id for job in found)}. Give the whole "
                       "id.")
    if not found:
        raise BadInput(f"This computer knows no job {job_id!r}. See: medmae job list; a job that was submitted from "
                       "another computer is found with --target NAME.")
    return found[0]


def list_jobs() -> list[Job]:
    """All jobs that this computer knows, the newest first. What is damaged is left out."""
    jobs = []
    for record in sorted(runs_folder().glob(f"*/{RECORD}"), reverse=True):
        try:
            jobs.append(_read(record.parent))
        except (BadInput, OSError):  # half a record cannot be: it is somebody's edit, and no reason to hide the others
            continue
    return jobs


def _read(mirror: Path) -> Job:
    job = from_json(Job, read_json(mirror / RECORD, "record of a job"), f"record of the job {mirror.name}")
    if job.id != mirror.name or not ID.fullmatch(job.id):
        raise BadInput(f"The record of the job {mirror.name} is of another one, {job.id!r}. Repair or remove it.")
    return job
