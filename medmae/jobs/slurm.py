"""Slurm, as far as it is only text: the header of a batch script, times, and what its states mean to a user."""

from __future__ import annotations

import re

from medmae.errors import BadInput
from medmae.jobs.target import Target

SECONDS_FOR_A_STOP = 120
# Slurm parses header lines itself, and not as sh does; names on a cluster have none of what would need quotes.
PLAIN = re.compile(r"[\w.,:+@/=-]+", re.ASCII)
TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")
OURS = ("--array", "--chdir", "--error", "--job-name", "--no-requeue", "--nodes", "--ntasks", "--ntasks-per-node",
        "--open-mode", "--output", "--requeue", "--signal", "--wrap", "--export", "--parsable")
OUR_LETTERS = ("-a", "-D", "-e", "-J", "-N", "-n", "-o")


def sbatch_header(target: Target, job_name: str, parts: int | None = None, at_once: int | None = None) -> str:
    """The ``#SBATCH`` lines of a job.

    Args:
        target: what is asked of the cluster.
        job_name: is seen by everybody there.
        parts: tasks of an array; None: no array.
        at_once: how many of the tasks run at the same time; None: no limit of ours.

    Raises:
        BadInput: a value that Slurm would read as something else.
    """
    seconds = seconds_of(target.time) if target.time else None
    options = {
        "job-name": re.sub(r"[^\w.-]+", "-", job_name, flags=re.ASCII).strip("-") or "medmae",
        "output": "/dev/null",  # run.sh redirects itself: Slurm takes % and \\ in the folder's name for its own signs
        "requeue": None,
        "signal": f"B:USR1@{seconds_for_a_stop(seconds)}",
        "array": (f"0-{parts - 1}" + (f"%{at_once}" if at_once else "")) if parts else "",
        "nodes": str(1 if parts else target.nodes),
        "ntasks-per-node": "1",
        "gres": f"gpu:{1 if parts else target.gpus}" if target.gpus else "",
        "cpus-per-task": str(target.cpus or ""),
        "time": target.time or "",
        "partition": _plain("partition", target.partition or ""),
        "account": _plain("account", target.account or "")}
    lines = [f"#SBATCH --{name}" + (f"={value}" if value else "") for name, value in options.items() if value != ""]
    return "\n".join([*lines, *(f"#SBATCH {_checked(line)}" for line in target.sbatch)])


def seconds_of(time: str) -> int | None:
    """Seconds of a time as Slurm writes it (``90``, ``1:30:00``, ``1-12``, ``1-12:00:00``); None for no limit.

    Raises:
        BadInput: it is not such a time.
    """
    if time.upper() in ("UNLIMITED", "INFINITE"):
        return None
    match = TIME.fullmatch(time)
    if not match or not time.isascii():
        raise BadInput(f"The time limit '{time}' is not one of Slurm's, so that no job can be submitted. Write "
                       "minutes, hours:minutes:seconds or days-hours:minutes:seconds, such as 1-12:00:00.")
    days = match["days"]
    first, second, third = (None if text is None else int(text) for text in match.group("first", "second", "third"))
    if days is not None:
        hours, minutes, seconds = first, second, third
    elif third is None:
        hours, minutes, seconds = 0, first, second
    else:
        hours, minutes, seconds = first, second, third
    return int(days or 0) * 86400 + (hours or 0) * 3600 + (minutes or 0) * 60 + (seconds or 0)


def seconds_for_a_stop(limit_s: int | None) -> int:
    """How long before its time limit a job is asked to stop: two minutes, of short limits a quarter."""
    return SECONDS_FOR_A_STOP if not limit_s else max(1, min(SECONDS_FOR_A_STOP, limit_s // 4))


def _plain(what: str, value: str) -> str:
    if value and not PLAIN.fullmatch(value) or value.startswith("-"):
        raise BadInput(f"The {what} '{value}' has signs that Slurm would read as something else, so that no job can be "
                       "submitted. Use letters, digits and . , : + @ / = _ -.")
    return value


def _checked(line: str) -> str:
    """A line of the user's for Slurm, which may have quotes for it."""
    words = line.replace("=", " ", 1).split()
    name = words[0] if words else ""
    if not re.fullmatch(r"--[a-z][a-z0-9-]*|-[A-Za-z]", name) or not line.isprintable() or line.count('"') % 2:
        raise BadInput(f"The line '{line}' for Slurm is not an option of sbatch. Write one option a line, such as "
                       "--mem=64G or --constraint=\"a100\".")
    if name in OURS or name in OUR_LETTERS:
        raise BadInput(f"The line '{line}' for Slurm would break how jobs are followed and stopped. Leave {name} out; "
                       "nodes, cards, time, partition and account have their own entries in a target.")
    return line
