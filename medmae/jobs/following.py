"""How a job stands, and its files as far as they have come: one look at a time, from any number of clients."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.folder_lock import only_writer
from medmae.jobs.calling import operate
from medmae.jobs.conversation import OperationFailed
from medmae.jobs.job import Job
from medmae.jobs.problems import TargetProblem
from medmae.jobs.submission import FOLDER, Submission, submission_of
from medmae.jobs.target import Target
from medmae.jobs.there.runs import OUTPUT, checksum_until

RECORD = "status.json"
FETCHED = "fetched.json"  # says that all of a job that is done is here
FINAL = ("done", "failed", "stopped", "interrupted")
MIRRORED = re.compile(r"progress\.jsonl|log\.txt|output\.txt|slurm-[\w.%-]{1,60}\.txt")
ANSWERS_WITHIN_SECONDS = 30.0
LIST_WITHIN_SECONDS = 6.0


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Args:
        state: submitting, queued, running, stopping, stopped, done, failed, interrupted or unreachable.
        stage: of the submission, or of the run.
        step: of `total`.
        eta_s: time left, where that can be told.
        reason: why it is so.
        remedy: what to do about it.
        queue: what the scheduler says, such as "PENDING (Resources)".
        last_state: what it was when it was last seen, where it is unreachable.
        seen: when the target was last asked successfully, in seconds since 1970.
    """

    state: str
    stage: str | None = None
    step: int | None = None
    total: int | None = None
    eta_s: float | None = None
    reason: str | None = None
    remedy: str | None = None
    queue: str | None = None
    last_state: str | None = None
    seen: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless somebody asks for it."""
        return self.state in FINAL


def follow(job: Job, timeout_s: float = ANSWERS_WITHIN_SECONDS) -> Status:
    """Look at a job once, and bring what is new in its files into the mirror.

    A target that does not answer changes nothing: the state is "unreachable" then, with the last known one.

    Args:
        job: as `load_job` gave it.
        timeout_s: the longest silence of the target.
    """
    job = job.refreshed()
    status = _before_the_run(job) or (_last(job) if (job.mirror / FETCHED).is_file() else None)
    if status is not None:
        return status
    try:
        with _mirroring(job) as may_write:
            while True:
                asked = {"run": job.folder, "have": _have(job) if may_write else None}
                told = operate(job.target, "runs.poll", {"runs": {job.id: asked}}, timeout_s)["runs"][job.id]
                if may_write:
                    _mirror(job, told)
                if not (may_write and told.get("more")):
                    return _seen(job, told)
    except TargetProblem as problem:
        return _unreachable(job, problem.finding, problem.remedy)


def follow_all(jobs: Sequence[Job], within_s: float = LIST_WITHIN_SECONDS) -> dict[str, Status]:
    """The status of many jobs, by id; all targets are asked at once, and none holds the others up for long.

    Args:
        jobs: as `list_jobs` gave them.
        within_s: when a target that has not answered counts as unreachable.
    """
    found: dict[str, Status] = {}
    by_target: dict[Target, list[Job]] = {}
    for job in jobs:
        known = _before_the_run(job) or (_last(job) if _is_settled(job) else None)
        if known is not None:
            found[job.id] = known
        else:
            by_target.setdefault(job.target, []).append(job)
    asking = [threading.Thread(target=_ask, args=(target, asked, within_s, found), daemon=True)
              for target, asked in by_target.items()]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + within_s
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {job.id: found.get(job.id) or _silent(job, within_s) for job in jobs}


def _silent(job: Job, within_s: float) -> Status:
    name = job.target.name
    return _unreachable(job, f"{name} has not answered within {within_s:.0f} s.", f"See: medmae target check {name}.")


def _ask(target: Target, jobs: Sequence[Job], within_s: float, found: dict[str, Status]) -> None:
    try:
        told = operate(target, "runs.poll", {"runs": {job.id: {"run": job.folder, "have": None} for job in jobs}},
                       within_s)["runs"]
        found.update({job.id: _seen(job, told[job.id]) for job in jobs})
    except TargetProblem as problem:
        found.update({job.id: _unreachable(job, problem.finding, problem.remedy) for job in jobs})
    except (OSError, OperationFailed) as error:
        found.update({job.id: _unreachable(job, str(error).strip().splitlines()[-1], "") for job in jobs})


def _is_settled(job: Job) -> bool:
    last = _last(job)
    return last is not None and last.state == "done"


def _before_the_run(job: Job) -> Status | None:
    """How the submission stands, while there is no run to ask for."""
    submission = submission_of(job)
    if submission.stage == "done" and job.folder is not None:
        return None
    if submission.is_alive:
        return Status("submitting", submission.stage, submission.done, submission.total, submission.eta_s,
                      submission.error, submission.remedy)
    if submission.is_over and submission.stage != "done":
        return _ended_before(job, submission)
    return Status("interrupted", submission.stage, reason="The submission ended before it was done.",
                  remedy=f"Go on with: medmae job resume {job.id}")


def _ended_before(job: Job, submission: Submission) -> Status:
    again = f"Then go on with: medmae job resume {job.id}"
    return Status(submission.stage, "submission", reason=submission.error,
                  remedy=" ".join(part for part in (submission.remedy, again) if part))


@contextlib.contextmanager
def _mirroring(job: Job) -> Any:
    """Whether this process may write into the mirror; another one that does brings the same bytes."""
    if job.runs_here:
        yield False
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_writer(job.mirror))
        except BadInput:
            yield False
            return
        yield True


def _have(job: Job) -> dict[str, list[int]]:
    """What the mirror has of each file: its size and a checksum of its end.

    The size of the file is the offset: a client that was killed in the middle of writing has written a beginning of
    what is new, and the next look goes on behind that.
    """
    have = {}
    for file in job.mirror.iterdir():
        if MIRRORED.fullmatch(file.name) and not file.is_symlink():
            size = file.stat().st_size
            have[file.name] = [size, checksum_until(file, size) or 0]
    return have


def _mirror(job: Job, told: Mapping[str, Any]) -> None:
    for name, news in told.get("new", {}).items():
        if not MIRRORED.fullmatch(name):  # what a target says is not trusted with names
            continue
        with open(job.mirror / name, "ab") as file:
            if file.tell() != news["from"]:  # it was begun anew there
                file.truncate(news["from"])
            file.write(base64.b64decode(news["data"]))
    if "state" in told:
        write_json(job.mirror / "state.json", told["state"])


def _seen(job: Job, told: Mapping[str, Any]) -> Status:
    """The status from what the target told, remembered for the time when it does not answer."""
    if told.get("missing"):
        return Status("interrupted", reason=f"Its folder {job.folder} is not on {job.target.name} any more.",
                      remedy="Submit it again.", seen=time.time())
    state = told["state"]
    record = {} if state["state"] in FINAL else told.get("last", {})
    counted = record if "stage" in record and "step" in record else state  # what comes before training counts itself
    status = Status(
        state=str(state["state"]), stage=_text(record.get("stage")), step=counted.get("step"),
        total=counted.get("total"), eta_s=record.get("eta_s"), reason=_reason(job, state.get("reason")),
        remedy=_remedy(job, state.get("remedy")), queue=_queue(told.get("slurm")), seen=time.time())
    if job.mirror.is_dir():  # a job of another computer is only remembered when somebody has asked for it
        write_json(job.mirror / RECORD, to_json(status))
    return status


def _queue(slurm: Mapping[str, Any] | None) -> str | None:
    """What Slurm says, in its own words: "PENDING (Resources)"."""
    if not slurm:
        return None
    if slurm.get("problem"):
        return _text(slurm["problem"])
    waiting = [job for job in slurm.get("jobs", []) if job.get("reason") not in (None, "", "None")]
    job = (waiting or slurm.get("jobs") or [None])[0]
    return None if job is None else _text(job["state"] + (f" ({job['reason']})" if waiting else ""))


def log_of(job: Job) -> str:
    """The log of a job as far as it has come; where its run has not begun, what was said before it."""
    for name in ("log.txt", *sorted(file.name for file in job.mirror.glob("slurm-*.txt")), OUTPUT, f"{FOLDER}/log.txt"):
        file = job.mirror / name
        if file.is_file() and file.stat().st_size:
            return file.read_text(encoding="utf-8", errors="replace")
    return ""


def _reason(job: Job, reason: Any) -> str | None:
    """What a run says, with the names that its cases have here."""
    text = _text(reason)
    if not text or "case-" not in text:
        return text
    from medmae.jobs.restoring import own_names_in

    return own_names_in(job.mirror, text)


def _remedy(job: Job, remedy: Any) -> str | None:
    """What a run says to do about it, in the words of jobs."""
    text = _text(remedy)
    return text and re.sub(r"--resume\b|(?<=with )resume\b", f"medmae job resume {job.id}", text)


def _text(value: Any) -> str | None:
    """A text from a target, without what would steer a terminal."""
    return None if value is None else printable(str(value))


def printable(text: str) -> str:
    """`text` without control characters other than line breaks and tabs."""
    return "".join(letter for letter in text if letter in "\n\t" or (letter.isprintable() or letter == "\u00a0"))


def _last(job: Job) -> Status | None:
    file = job.mirror / RECORD
    return from_json(Status, read_json(file, "status of a job")) if file.is_file() else None


def _unreachable(job: Job, reason: str, remedy: str) -> Status:
    last = _last(job) or Status("queued")
    return dataclasses.replace(last, state="unreachable", last_state=last.state, eta_s=None, reason=reason,
                               remedy=f"{remedy} The job goes on meanwhile.".strip())
