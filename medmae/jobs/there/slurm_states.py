"""What Slurm says about jobs: read from its tables, and put into words with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

QUEUE_FORMAT = "%i|%F|%K|%T|%L|%N|%r"
LIVE = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "RUNNING", "RESIZING",
        "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "COMPLETING")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT")

# By the beginning of the reason; the rest of the reasons are told as Slurm gives them.
REASONS = {
    "None": "Slurm has not looked at it yet.",
    "Priority": "Other jobs come first.",
    "Resources": "It waits for free nodes.",
    "BeginTime": "It waits for its time to begin.",
    "Dependency": "It waits for another job.",
    "JobArrayTaskLimit": "It waits for other parts of the same job.",
    "JobHeldUser": "It is held: release it with scontrol release.",
    "JobHeldAdmin": "It is held by the cluster's administrators: ask them.",
    "ReqNodeNotAvail": "The nodes are down or reserved.",
    "Reservation": "It waits for a reservation.",
    "PartitionDown": "The partition is down.",
    "PartitionInactive": "The partition is inactive.",
    "PartitionTimeLimit": "It asks for more time than the partition allows and never starts: stop it, set a shorter "
                          "time for the target and start again.",
    "PartitionNodeLimit": "It asks for more nodes than the partition has and never starts: stop it, set fewer nodes "
                          "for the target and start again.",
    "PartitionConfig": "The partition is too small for what it asks and it never starts: stop it, ask for less in the "
                       "target and start again.",
    "BadConstraints": "No node can ever fulfil it: stop it, ask for less in the target and start again.",
    "InvalidAccount": "The account is not valid: stop it, correct the target's account and start again.",
    "InvalidQOS": "The quality of service is not valid: stop it, correct the target and start again.",
    "Assoc": "It waits because of a limit of your account.",
    "QOS": "It waits because of a limit of the quality of service.",
    "launch failed requeued held": "It could not be started and is held: see slurm-*.txt, then scontrol release.",
}

# state -> our state, what happened, what to do; only for runs that did not say themselves how they ended
ENDS = {
    "CANCELLED": ("stopped", "The job was cancelled in Slurm.", "Continue it with resume."),
    "TIMEOUT": ("interrupted", "The job reached its time limit before it could stop by itself.",
                "Continue it with resume; set a longer time for the target if that happens again."),
    "OUT_OF_MEMORY": ("failed", "Slurm ended the job because it used more memory than it had asked for.",
                      "Ask for more (--mem among the target's lines for Slurm) or use a smaller batch, then resume."),
    "NODE_FAIL": ("interrupted", "The node of the job failed.", "Continue it with resume."),
    "BOOT_FAIL": ("interrupted", "The node of the job did not start.", "Continue it with resume."),
    "PREEMPTED": ("interrupted", "Another job has taken the nodes (preemption).", "Continue it with resume."),
    "DEADLINE": ("interrupted", "The job's deadline has passed.", "Continue it with resume."),
    "FAILED": ("failed", "The job ended with exit code {code} before it could say why.",
               "See slurm-*.txt in the run folder, then continue it with resume."),
    "COMPLETED": ("interrupted", "The job ended without saying how.", "Continue it with resume."),
    "REVOKED": ("interrupted", "Slurm has moved the job to another cluster.", "Continue it with resume."),
}
GONE = ("interrupted", "Slurm does not know the job any more, and the run did not say how it ended.",
        "Continue it with resume.")
KILLED = 128 + 9


@dataclass(frozen=True)
class SlurmJob:
    """A job, or a task of an array, as Slurm tells of it.

    Args:
        id: of the job; of a task ``ID_TASK``.
        state: in Slurm's long form.
        task: number in its array; None for a job that is none.
        reason: why it waits; in Slurm's words.
        nodes: where it runs.
        seconds_left: of its time limit; None: no limit, or not known.
        exit_code: None while it runs, or not known.
        restarts: how often Slurm has started it again; None: not known.
    """

    id: str
    state: str
    task: int | None = None
    reason: str = ""
    nodes: str = ""
    seconds_left: int | None = None
    exit_code: int | None = None
    restarts: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether it runs or will."""
        return self.state in LIVE

    @property
    def is_waiting(self) -> bool:
        """Whether it is in the queue."""
        return self.state in WAITING


def parse_queue(text: str) -> dict[str, list[SlurmJob]]:
    """The table that ``squeue --noheader --array --format QUEUE_FORMAT`` prints: {id of the job: its tasks}."""
    jobs: dict[str, list[SlurmJob]] = {}
    for line in text.splitlines():
        fields = line.strip().split("|", 6)
        if len(fields) == 7:
            identity, job, task, state, left, nodes, reason = fields
            jobs.setdefault(job, []).append(SlurmJob(
                identity, state, int(task) if task.isdecimal() else None, reason.strip(), nodes,
                parse_duration(left)))
    return jobs


def parse_details(text: str) -> dict[str, list[SlurmJob]]:
    """What ``scontrol --oneliner show job`` prints: {id of the job: its tasks}."""
    jobs: dict[str, list[SlurmJob]] = {}
    for line in text.splitlines():
        # Values may hold spaces and equals signs, but those that count come before all that a user can name.
        values = dict(reversed(re.findall(r"(?:^| )([A-Z][A-Za-z:/]*)=(\S*)", line)))
        if "JobId" not in values or "JobState" not in values:
            continue
        array, code = values.get("ArrayJobId"), values.get("ExitCode", "").partition(":")
        for task in _tasks_of(values.get("ArrayTaskId")) if array else [None]:
            job = array or values["JobId"]
            ended = values["JobState"] not in LIVE
            jobs.setdefault(job, []).append(SlurmJob(
                job if task is None else f"{job}_{task}", values["JobState"], task, values.get("Reason", ""),
                values.get("NodeList", "").replace("(null)", ""), None, _exit_code(code[0], code[2]) if ended else None,
                int(values["Restarts"]) if values.get("Restarts", "").isdecimal() else None))
    return jobs


def parse_duration(text: str) -> int | None:
    """Seconds of ``[days-][hours:]minutes:seconds``; None for what is no time (UNLIMITED, INVALID, NOT_SET)."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def job_number(text: str) -> str | None:
    """The job in what ``sbatch --parsable`` prints (``123`` or ``123;cluster``); warnings may come before it."""
    found = re.findall(r"^(\d+)(?:;\S*)?$", text, re.MULTILINE)
    return found[-1] if found else None


def waits_because(job: SlurmJob) -> str:
    """Why a job waits, in words."""
    if job.restarts and job.reason == "BeginTime":
        return "It goes on in about two minutes: so long Slurm holds a job that it starts again."
    words = next((words for beginning, words in REASONS.items() if job.reason.startswith(beginning)), None)
    words = words or (f"Slurm says: {job.reason}." if job.reason else "Slurm has not looked at it yet.")
    return f"It goes on later. {words}" if job.restarts else words


def end_of(job: SlurmJob | None) -> tuple[str, str, str]:
    """Our state, what happened and what to do, where the run did not say itself how it ended."""
    if job is None:
        return GONE
    name = job.state.split(" ")[0]
    state, happened, remedy = ENDS.get(name, ("interrupted", f"Slurm says: {name}.", "Continue it with resume."))
    if name == "FAILED" and job.exit_code == KILLED:
        happened += " A process that is killed ends like that, most often because memory has run out."
    return state, happened.format(code=job.exit_code), remedy


def as_json(jobs: Iterable[SlurmJob]) -> list[dict[str, Any]]:
    """For an answer."""
    return [{"id": job.id, "state": job.state, "task": job.task, "reason": job.reason, "nodes": job.nodes,
             "seconds_left": job.seconds_left, "exit_code": job.exit_code, "restarts": job.restarts,
             "words": waits_because(job) if job.is_waiting else ""} for job in jobs]


def _tasks_of(text: str | None) -> list[int]:
    """The numbers in ``1-3,5%2``."""
    numbers: list[int] = []
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", (text or "").partition("%")[0]):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _exit_code(code: str, signal: str) -> int | None:
    if not code.isdecimal():
        return None
    return 128 + int(signal) if signal.isdecimal() and int(signal) else int(code)
