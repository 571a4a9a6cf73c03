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
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.folder_lock import only_writer
from medmae.jobs import told as telling
from medmae.jobs.calling import operate
from medmae.jobs.conversation import OperationFailed
from medmae.jobs.job import Job
from medmae.jobs.problems import TargetProblem, odd_answer
from medmae.jobs.samples import mirror_samples, samples_here
from medmae.jobs.submission import FOLDER, Submission, submission_of
from medmae.jobs.target import Target
from medmae.jobs.there.runs import BYTES_A_POLL, OUTPUT, checksum_until

RECORD = "status.json"
FETCHED = "fetched.json"  # says that all of a job that is done is here
FINAL = ("done", "failed", "stopped", "interrupted")
MIRRORED = re.compile(r"progress\.jsonl|log\.txt|output\.txt|slurm-[\w.%-]{1,60}\.txt")
ANSWERS_WITHIN_SECONDS = 30.0
LIST_WITHIN_SECONDS = 6.0
PIECES_A_LOOK = 256  # what is more comes with the next look; a target that never ends does not hold us up
LARGEST_MIRRORED = 1 << 30  # bytes of a file; no log of a run is larger
STATES = ("queued", "running", "stopping", *FINAL)  # that a target can tell of


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
            for _ in range(PIECES_A_LOOK):
                asked = {"run": job.folder, "have": _have(job) if may_write else None,
                         "samples": samples_here(job.mirror) if may_write else None}
                told = _of_job(job, operate(job.target, "runs.poll", {"runs": {job.id: asked}}, timeout_s))
                came = _mirror(job, told) if may_write else 0
                if not (came and told.get("more")):
                    break
            return _seen(job, told)
    except TargetProblem as problem:
        return _unreachable(job, problem.finding, problem.remedy)


def last_known(job: Job) -> Status:
    """How a job stood when it was last looked at; asks nobody."""
    job = job.refreshed()
    return _before_the_run(job) or _last(job) or Status("queued")


def follow_all(jobs: Sequence[Job], within_s: float = LIST_WITHIN_SECONDS) -> dict[str, Status]:
    """The status of many jobs, by id; all targets are asked at once, and none holds the others up for long.

    Args:
        jobs: as `list_jobs` gave them.
        within_s: when a target that has not answered counts as unreachable.
    """
    found: dict[str, Status] = {}
    by_target: dict[Target, list[Job]] = {}
    for job in jobs:
        try:
            known = _before_the_run(job) or (_last(job) if _is_settled(job) else None)
        except BadInput as damaged:  # no reason to hide the others
            known = Status("interrupted", reason=str(damaged))
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
                       within_s)
    except (TargetProblem, BadInput, OSError, OperationFailed) as error:
        found.update({job.id: _not_seen(job, error) for job in jobs})
        return
    for job in jobs:
        try:
            found[job.id] = _seen(job, _of_job(job, told))
        except (TargetProblem, OSError) as error:
            found[job.id] = _not_seen(job, error)


def _not_seen(job: Job, error: Exception) -> Status:
    if isinstance(error, TargetProblem):
        return _unreachable(job, error.finding, error.remedy)
    return _unreachable(job, (str(error).strip() or type(error).__name__).splitlines()[-1], "")


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


def _of_job(job: Job, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a target tells of a job.

    Raises:
        TargetProblem: it is nothing that a run says, so that the target is not to be believed.
    """
    told = telling.mapping(telling.mapping(answer.get("runs")).get(job.id))
    if not told.get("missing") and telling.mapping(told.get("state")).get("state") not in STATES:
        raise odd_answer(job.target.name)
    return told


def _mirror(job: Job, told: Mapping[str, Any]) -> int:
    """Write what is new; returns how many bytes that were. What a target says is trusted with nothing else.

    Raises:
        TargetProblem: it is more than was asked for, or cannot be the next piece of a file.
    """
    came = 0
    for name, news in telling.mapping(told.get("new")).items():
        if MIRRORED.fullmatch(name):
            with open(job.mirror / name, "ab") as file:
                begin, data = _piece(job, news, file.tell(), BYTES_A_POLL - came)
                if file.tell() != begin:  # it was begun anew there
                    file.truncate(begin)
                file.write(data)
            came += len(data)
    came += mirror_samples(job.mirror, told.get("samples"))
    if "state" in told:
        write_json(job.mirror / "state.json", telling.sound(told["state"]))
    return came


def _piece(job: Job, news: Any, size: int, at_most: int) -> tuple[int, bytes]:
    """Where the bytes belong that have come of a file that has `size` bytes here, and these."""
    begin = telling.whole(telling.mapping(news).get("from"))
    try:
        data = base64.b64decode(telling.mapping(news).get("data"), validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise odd_answer(job.target.name) from None
    if begin is None or begin > size or len(data) > at_most or begin + len(data) > LARGEST_MIRRORED:
        raise odd_answer(job.target.name)
    return begin, data


def _seen(job: Job, told: Mapping[str, Any]) -> Status:
    """The status from what the target told, remembered for the time when it does not answer."""
    if told.get("missing"):
        where = telling.printable(str(job.folder))
        return Status("interrupted", reason=f"Its folder {where} is not on {job.target.name} any more.",
                      remedy=f"Go on with: medmae job resume {job.id} (from the beginning)", seen=time.time())
    state = told["state"]
    record = {} if state["state"] in FINAL else telling.mapping(told.get("last"))
    counted = record if "stage" in record and "step" in record else state  # what comes before training counts itself
    status = Status(
        state=state["state"], stage=telling.text(record.get("stage")), step=telling.whole(counted.get("step")),
        total=telling.whole(counted.get("total")), eta_s=telling.seconds(record.get("eta_s")),
        reason=_reason(job, state.get("reason")), remedy=_remedy(job, state.get("remedy")),
        queue=_queue(telling.mapping(telling.sound(told.get("slurm")))), seen=time.time())
    if job.mirror.is_dir():  # a job of another computer is only remembered when somebody has asked for it
        write_json(job.mirror / RECORD, to_json(status))
    return status


def _queue(slurm: Mapping[str, Any]) -> str | None:
    """What Slurm says, in its own words: "PENDING (Resources)"."""
    if slurm.get("problem"):
        return str(slurm["problem"])
    told = slurm.get("jobs")
    jobs = [telling.mapping(job) for job in told] if isinstance(told, list) else []
    waiting = [job for job in jobs if job.get("reason") not in (None, "", "None")]
    job = next(iter(waiting or jobs), None)
    return None if job is None else f"{job.get('state')}" + (f" ({job['reason']})" if waiting else "")


def log_file(job: Job) -> Path | None:
    """The file here that tells most of a job: its log, or where its run has not begun what was said before it."""
    names = ("log.txt", *sorted(file.name for file in job.mirror.glob("slurm-*.txt")), OUTPUT, f"{FOLDER}/log.txt")
    files = (job.mirror / name for name in names)
    return next((file for file in files if file.is_file() and file.stat().st_size), None)


def log_of(job: Job) -> str:
    """The log of a job as far as it has come."""
    file = log_file(job)
    return "" if file is None else file.read_text(encoding="utf-8", errors="replace")


def _reason(job: Job, reason: Any) -> str | None:
    """What a run says, with the names that its cases have here."""
    text = telling.text(reason)
    if not text or "case-" not in text:
        return text
    from medmae.jobs.restoring import own_names_in

    return own_names_in(job.mirror, text)


def _remedy(job: Job, remedy: Any) -> str | None:
    """What a run says to do about it, in the words of jobs."""
    text = telling.text(remedy)
    return text and re.sub(r"--resume\b|(?<=with )resume\b", f"medmae job resume {job.id}", text)


def _last(job: Job) -> Status | None:
    """The status when it was last seen; None where it never was, or where its record is damaged."""
    file = job.mirror / RECORD
    with contextlib.suppress(BadInput):  # with the next look it is written anew
        return from_json(Status, read_json(file, "status of a job")) if file.is_file() else None
    return None


def _unreachable(job: Job, reason: str, remedy: str) -> Status:
    last = _last(job) or Status("queued")
    return dataclasses.replace(last, state="unreachable", last_state=last.state, eta_s=None, reason=reason,
                               remedy=f"{remedy} The job goes on meanwhile.".strip())
