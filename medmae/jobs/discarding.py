"""Ending a job whose result nobody wants, and removing it: by a process of its own, which outlives whoever asks for it.

A job whose target cannot be told goes on there, and stays among those that this computer knows.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from medmae.errors import BadInput
from medmae.jobs.following import follow
from medmae.jobs.job import Job, load_job
from medmae.jobs.problems import TargetProblem
from medmae.jobs.stopping import UNDER_WAY, remove, stop
from medmae.jobs.submission import FOLDER
from medmae.jobs.there.processes import start_detached
from medmae.worker.child import environment_of_worker

LOG = "discarding.txt"
WAIT_SECONDS = (2.0, 5.0, 15.0)  # between attempts to reach a target that may answer later
ENDS_WITHIN_SECONDS = 60.0


def discard_soon(job: Job, folders: Sequence[Path] = ()) -> None:
    """Let a process do `discard`; returns at once."""
    command = [sys.executable, "-m", "medmae.jobs.discarding", job.id, *map(str, folders)]
    start_detached(command, job.mirror.parent, job.mirror / FOLDER / LOG, environment_of_worker())


def discard(job: Job, folders: Sequence[Path] = ()) -> None:
    """End a job now and delete it, here and on its target; also `folders`, whatever comes of the job.

    Raises:
        TargetProblem: the target cannot be told. The job stays; its results would be fetched into the mirror.
    """
    try:
        _end(job)
        remove(job.refreshed())
    except (TargetProblem, BadInput):
        job.refreshed().replace(out=None)
        raise
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _end(job: Job) -> None:
    waits = iter(WAIT_SECONDS)
    while True:
        try:
            stop(job, hard=True)
            break
        except TargetProblem as problem:
            wait = next(waits, None) if problem.may_pass else None
            if wait is None:
                raise
            time.sleep(wait)
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while follow(job.refreshed()).state in UNDER_WAY and time.monotonic() < deadline:
        time.sleep(0.5)


def main() -> None:
    """Entry point of ``python -m medmae.jobs.discarding ID FOLDER...``."""
    discard(load_job(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])


if __name__ == "__main__":
    main()
