"""Jobs in Slurm: submitted, looked at, stopped, cancelled. Runs on the login node.

``slurm_job_id`` in the run folder names the job; everything else is asked of Slurm. Accounting (``sacct``) is not
needed: what Slurm has forgotten, the run folder tells.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import write_text
from medmae.jobs.there.parts import parts_of, unfinished, with_parts
from medmae.jobs.there.serving import Channel
from medmae.jobs.there.slurm_states import (
    QUEUE_FORMAT,
    SlurmJob,
    as_json,
    end_of,
    job_number,
    parse_details,
    parse_queue,
    waits_because,
)
from medmae.run_folder import RunFolder

JOB_FILE = "slurm_job_id"
REQUEUE_FILE = "REQUEUE"
ANSWER_WITHIN_SECONDS = 30.0
SILENT = re.compile("unable to contact slurm controller|timed out", re.IGNORECASE)
NOT_SUBMITTED = "{} The job was not submitted. Try again, or ask the cluster's support."
NEWS_WITHIN_SECONDS = 60.0  # network file systems show what other nodes wrote only after a while


class SlurmSilent(Exception):
    """Slurm is not there, or does not answer; jobs may be well."""


def submit(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Give ``run.sh`` of a run folder to Slurm; a job that is there already is left alone.

    Args:
        arguments: run. Of one with parts, those that are done are not submitted.

    Returns:
        job_id; submitted (whether there was none before).

    Raises:
        BadInput: Slurm refuses the job, is not there or does not answer.
    """
    run = Path(arguments["run"])
    if is_live(run):
        return {"job_id": job_of(run), "submitted": False}
    try:
        said = _ask(["sbatch", "--parsable", *_missing_tasks(run), "run.sh"], run)
    except subprocess.CalledProcessError as problem:
        if not SILENT.search(problem.stderr):
            raise BadInput(_refusal(problem.stderr)) from None
        raise BadInput(NOT_SUBMITTED.format(_silence(problem.stderr))) from None
    except SlurmSilent as silent:
        raise BadInput(NOT_SUBMITTED.format(silent)) from None
    job = job_number(said)
    if job is None:
        raise BadInput(f"sbatch gave no number of a job but '{said.strip()}'. Look at squeue there before "
                       "trying again.")
    write_text(run / JOB_FILE, job + "\n")
    return {"job_id": job, "submitted": True}


def _missing_tasks(run: Path) -> list[str]:
    """The option of sbatch for the parts that are not done; none where the run has no parts."""
    if not parts_of(run):
        return []
    numbers = unfinished(run) or [0]  # the last one is done, but the results were not brought together
    at_once = re.search(r"^#SBATCH --array=[^%\n]*(%\d+)$", (run / "run.sh").read_text(encoding="utf-8"), re.MULTILINE)
    return [f"--array={','.join(map(str, numbers))}{at_once[1] if at_once else ''}"]


def judge(runs: Mapping[str, str], told: dict[str, Any]) -> None:
    """Add to `told` what Slurm says about runs, and correct their state by it.

    Args:
        runs: {name: run folder}.
        told: {name: {state}}; gets {slurm: {job_id, jobs, problem}}.
    """
    numbers = {name: job_of(Path(path)) for name, path in runs.items()}
    try:
        jobs = look([number for number in numbers.values() if number])
    except SlurmSilent as silent:
        for name, number in numbers.items():
            told[name]["slurm"] = {"job_id": number, "jobs": [], "problem": str(silent)}
            told[name]["state"] = _between_goes(RunFolder(runs[name]), told[name]["state"])
        return
    for name, number in numbers.items():
        found = jobs.get(number or "", [])
        told[name]["slurm"] = {"job_id": number, "jobs": as_json(found), "problem": None}
        told[name]["state"] = _judged_whole(RunFolder(runs[name]), told[name]["state"], found)


def _between_goes(run: RunFolder, state: dict[str, Any]) -> dict[str, Any]:
    """The state while Slurm is silent: a run that stopped to be started again is not said to have ended."""
    asked = any((folder.path / REQUEUE_FILE).exists() for folder in (run, *parts_of(run.path)))
    if state["state"] != "stopped" or not asked:
        return state
    return {**state, "state": "queued", "reason": "It stopped for Slurm, and goes on when Slurm starts it again.",
            "remedy": None}


def _judged_whole(run: RunFolder, state: dict[str, Any], jobs: Sequence[SlurmJob]) -> dict[str, Any]:
    parts = parts_of(run.path)
    if not parts:
        return judged(run, state, jobs[0] if jobs else None)
    tasks = {job.task: job for job in jobs}
    states = [judged(part, part.state(), tasks.get(number)) for number, part in enumerate(parts)]
    return with_parts(run, run.state(), any(job.is_live for job in jobs), states)


def judged(run: RunFolder, state: dict[str, Any], job: SlurmJob | None) -> dict[str, Any]:
    """The state of a run whose job is `job` (None: Slurm does not know it any more)."""
    if job is None or not job.is_live:
        return _ended(run, state, job)
    # Between two goes of a job, the run itself has said that it stopped, or nothing any more.
    if state["state"] in ("queued", "interrupted") or (state["state"] == "stopped" and not _stopped_by_user(run)):
        words = waits_because(job) if job.is_waiting else f"It begins on {job.nodes}."
        return {**state, "state": "queued", "reason": words, "remedy": None}
    return state


def _ended(run: RunFolder, state: dict[str, Any], job: SlurmJob | None) -> dict[str, Any]:
    """The state of a run that Slurm will not go on with."""
    final = ("done", "failed", "stopped")
    latest = state if state["state"] in final else run.state()  # it may have ended well between the two looks
    if latest["state"] in final:
        return latest
    if job is None and latest["state"] != "queued":  # its own heartbeat says more than that Slurm has forgotten it
        return latest
    if job is not None and job.state == "COMPLETED" and time.time() - latest["updated"] < NEWS_WITHIN_SECONDS:
        return latest
    ours, reason, remedy = end_of(job)
    if ours == "interrupted" and _stopped_by_user(run):
        begun = latest["state"] != "queued"
        ours, reason = "stopped", ("It was stopped; what it did since its last checkpoint is lost." if begun
                                   else "It was stopped before it began.")
    return {**latest, "state": ours, "reason": reason, "remedy": remedy}


def _stopped_by_user(run: RunFolder) -> bool:
    return run.stop_requested and not (run.path / REQUEUE_FILE).exists()


def stop(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Ask the job of a run to stop gracefully and for good; one that waits in the queue is taken out of it.

    Args:
        arguments: run.
    """
    run, number = RunFolder(arguments["run"]), job_of(Path(arguments["run"]))
    for folder in (run, *parts_of(run.path)):
        folder.request_stop()
        (folder.path / REQUEUE_FILE).unlink(missing_ok=True)  # from now on the stop is the user's
    if number:
        _scancel(["--state=PENDING", number])
    return {"job_id": number}


def cancel(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """End the job of a run now: Slurm asks its processes to stop, and kills them half a minute later.

    Args:
        arguments: run.
    """
    answer = stop(arguments, channel)
    if answer["job_id"]:
        _scancel([answer["job_id"]])
    return answer


def facts(_arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """What the cluster is: version, partitions [{name, is_default, gres, time_limit, state}], accounts, problem."""
    try:
        version = _ask(["sinfo", "--version"]).strip()
        table = _ask(["sinfo", "--noheader", "--format=%P|%G|%l|%a"])
    except (SlurmSilent, subprocess.CalledProcessError) as problem:
        said = _silence(problem.stderr) if isinstance(problem, subprocess.CalledProcessError) else str(problem)
        return {"version": None, "partitions": [], "accounts": [], "problem": said}
    partitions = []
    for line in table.splitlines():
        name, gres, limit, state = (line.strip().split("|") + [""] * 4)[:4]
        partitions.append({"name": name.rstrip("*"), "is_default": name.endswith("*"),
                           "gres": "" if gres == "(null)" else gres, "time_limit": limit, "state": state})
    return {"version": version, "partitions": partitions, "accounts": _accounts(), "problem": None}


def look(numbers: Sequence[str]) -> dict[str, list[SlurmJob]]:
    """What Slurm says about jobs: {number: its tasks}; those that it has forgotten are absent.

    Raises:
        SlurmSilent: it is not there or does not answer.
    """
    if not numbers:
        return {}
    try:
        queue = parse_queue(_ask(["squeue", "--noheader", "--array", f"--format={QUEUE_FORMAT}", "--me"]))
        jobs = {number: _with_details(number, queue.get(number, [])) for number in numbers}
    except subprocess.CalledProcessError as error:
        raise SlurmSilent(_silence(error.stderr)) from None
    return {number: tasks for number, tasks in jobs.items() if tasks}


def job_of(run: Path) -> str | None:
    """The number of a run's job; None where it was never submitted."""
    file = run / JOB_FILE
    number = file.read_text().strip() if file.is_file() else ""
    return number if number.isdecimal() else None


def is_live(run: Path) -> bool:
    """Whether Slurm runs the job of a run, or will.

    Raises:
        BadInput: Slurm cannot be asked.
    """
    number = job_of(run)
    if number is None:
        return False
    try:
        return any(job.is_live for job in look([number]).get(number, []))
    except SlurmSilent as silent:
        raise BadInput(f"{silent} Whether the job still runs cannot be known. Try again later.") from None


def _with_details(number: str, queued: list[SlurmJob]) -> list[SlurmJob]:
    """Tasks from the queue with how often they were restarted, and those that have ended."""
    try:
        details = parse_details(_ask(["scontrol", "--oneliner", "show", "job", number])).get(number, [])
    except subprocess.CalledProcessError as error:
        if "Invalid job id" not in error.stderr:
            raise
        return queued  # Slurm has forgotten it
    live = {job.task: job for job in queued}
    merged = [SlurmJob(**{**vars(live.get(job.task, job)), "restarts": job.restarts}) for job in details]
    return sorted(merged, key=lambda job: -1 if job.task is None else job.task)


def _scancel(arguments: Sequence[str]) -> None:
    try:
        _ask(["scancel", *arguments])
    except subprocess.CalledProcessError as error:
        if "Invalid job id" not in error.stderr:  # it has ended already
            raise BadInput(f"Slurm does not cancel the job: {error.stderr.strip()} Try again later.") from None
    except SlurmSilent as silent:
        raise BadInput(f"{silent} The run stops at its next step all the same. Try again later.") from None


def _accounts() -> list[str]:
    """The user's accounts; empty where the cluster keeps no accounts."""
    try:
        user = _ask(["id", "-un"]).strip()
        said = _ask(["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={user}", "format=account"])
    except (SlurmSilent, subprocess.CalledProcessError):
        return []
    return sorted({line.strip() for line in said.splitlines() if line.strip()})


def _refusal(said: str) -> str:
    words = " ".join(line.removeprefix("sbatch: error: ").strip() for line in said.splitlines() if line.strip())
    remedy = "Correct the target and start again."
    if "invalid partition" in words.lower():
        remedy = "See the partitions with sinfo there, correct the target's partition and start again."
    elif "account" in words.lower():
        remedy = "Correct the target's account and start again."
    elif "node configuration is not available" in words:
        remedy = "No node has so many cards, cores or so much memory: ask for less in the target and start again."
    elif "time limit" in words.lower():
        remedy = "Set a shorter time for the target and start again."
    return f"Slurm refuses the job: {words} {remedy}"


def _silence(said: str) -> str:
    return f"Slurm does not answer: {' '.join(said.split()) or 'no reason given'}."


def _ask(command: Sequence[str], folder: Path | None = None) -> str:
    """What a command of Slurm prints.

    Raises:
        SlurmSilent: it is not installed, or does not answer in time.
        subprocess.CalledProcessError: it says no.
    """
    # In a job of Slurm, its variables would change what is asked.
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SINFO_")) or name == "SLURM_CONF"}
    try:
        done = subprocess.run(command, cwd=folder, env=kept, stdin=subprocess.DEVNULL, capture_output=True, check=True,
                              text=True, errors="replace", timeout=ANSWER_WITHIN_SECONDS)
    except FileNotFoundError:
        raise SlurmSilent(f"Slurm is not there: the command {command[0]} was not found.") from None
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"Slurm does not answer: {command[0]} has taken {ANSWER_WITHIN_SECONDS:.0f} s.") from None
    return done.stdout
