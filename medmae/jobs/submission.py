"""Submitting a job: a process of its own brings everything to the target and starts the run there.

The command that submits returns at once; the process outlives it, its terminal and Slicer. How far it is stands in
``submission.json``. Everything it does can be done again: after a lost connection, a kill or a crash the same process
is started once more and goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.folder_lock import only_writer
from medmae.jobs.calling import operate
from medmae.jobs.job import NAME, Job, load_job, new_id
from medmae.jobs.problems import ConnectionLost, TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.there.processes import start_detached
from medmae.jobs.transport import Transport, connect
from medmae.jobs.upload import Upload
from medmae.run_folder import Kind, RunFolder, process_start
from medmae.worker.child import environment_of_worker

RECORD = "submission.json"
RESULTS = "outputs"  # the folder of labels and tables in a run folder
FOLDER = "submission"  # the lock of the process that submits, what it says, and what is made for the way there
WAIT_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, *[60.0] * 10)
REPORT_EVERY_SECONDS = 0.5
BEGINS_WITHIN_SECONDS = 60.0
SILENCE_SECONDS = 120.0
STARTING = "starting"  # the stage in which the run may begin


@dataclass(frozen=True)
class Submission:
    """How far a submission is.

    Args:
        stage: what is being done; "waiting" before, "done", "failed" or "stopped" after.
        done: of `total`, in the unit of the stage.
        eta_s: time left of the stage, where that can be told.
        error: why it failed, or what is being waited for.
        remedy: what to do about it.
        code: of the problem of the target.
        pid: the process that submits; with `pid_start`, which tells it from later ones of that number.
        updated: when this was written.
    """

    stage: str = "waiting"
    done: int = 0
    total: int = 0
    eta_s: float | None = None
    error: str | None = None
    remedy: str | None = None
    code: str | None = None
    pid: int | None = None
    pid_start: float | None = None
    updated: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do for it."""
        return self.stage in ("done", "failed", "stopped")

    @property
    def is_alive(self) -> bool:
        """Whether a process is at it."""
        if self.is_over:
            return False
        if self.pid is None:
            return time.time() - self.updated < BEGINS_WITHIN_SECONDS
        began = process_start(self.pid)
        return began is not None and began == self.pid_start


def submit(target: Target, kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any], *, name: str | None = None,
           out: Path | None = None, parts: int | None = None, job_id: str | None = None,
           prepare: Callable[[RunFolder], Any] = lambda run: None) -> Job:
    """Begin to submit a run; returns at once.

    Args:
        target: where to.
        kind: of the run.
        config: its resolved configuration.
        inputs: of the run, with the paths of this computer.
        name: what the job is called; default: its id.
        out: where results go when they are fetched; default: the mirror.
        parts: processes that share the cases of a segmentation.
        job_id: as `new_id` has made it, where `inputs` name files in the job's folder; default: a new one.
        prepare: writes such files, before anything else begins; where it raises, nothing is left of the job.

    Raises:
        BadInput: the name cannot be that of a model.
    """
    if name is not None and not NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be the name of a job. Use letters, digits, spaces and . + - _, beginning with "
                       "a letter or digit, 100 characters at most (--name).")
    job_id = job_id or new_id(kind)
    job = Job(id=job_id, name=name or job_id, kind=kind, target=target, created=time.time(),
              out=None if out is None else str(out.expanduser().absolute()), parts=parts)
    run = RunFolder.create(job.mirror, kind, config, _with_results(job, inputs))
    try:
        prepare(run)
        (job.mirror / FOLDER).mkdir()
        job.save()
    except BaseException:
        shutil.rmtree(job.mirror, ignore_errors=True)
        raise
    begin(job)
    return job


def _with_results(job: Job, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run that writes results: where to, and that it goes on with what is there when started again."""
    if job.kind in ("segment", "classify", "rank"):
        return {**inputs, "out": job.out or str(job.mirror / RESULTS), "resume": True}
    return {**inputs, "out": job.out} if job.kind == "evaluate" and job.out else dict(inputs)


def begin(job: Job) -> None:
    """Start the process that submits `job`, or goes on with that."""
    _write(job, Submission(updated=time.time()))
    start_detached([sys.executable, "-m", "medmae.jobs.submission", job.id], job.mirror / FOLDER,
                   job.mirror / FOLDER / "log.txt", environment_of_worker())


def submission_of(job: Job) -> Submission:
    """How far the submission is; a job of another computer has none and counts as submitted."""
    file = job.mirror / RECORD
    return from_json(Submission, read_json(file, "record of a submission")) if file.is_file() else Submission("done")


def give_up(job: Job) -> None:
    """End the process that submits `job`; what it has brought to the target stays there for another time.

    The stage stays "starting" where the run may have begun meanwhile, and "done" where it has.
    """
    while (submission := submission_of(job)).is_alive:  # a process that is only just beginning has no number yet
        if submission.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(submission.pid, signal.SIGTERM)
        time.sleep(0.05)
    if not submission.is_over and submission.stage != STARTING:
        note_stopped(job)


def note_stopped(job: Job) -> None:
    """The submission was ended as asked, and there is no run of it."""
    _write(job, dataclasses.replace(submission_of(job), stage="stopped",
                                    error="Stopped as asked before it was submitted."))


def note_begun(job: Job) -> None:
    """The run has begun, although the submission was ended before it could say so."""
    _write(job, dataclasses.replace(submission_of(job), stage="done"))


def perform(job: Job) -> Submission:
    """Do the work, in this process: everything that is missing, again and again while the connection comes and goes.

    Raises:
        BadInput: another process is at it.
    """
    with only_writer(job.mirror / FOLDER):
        log = _Log(job)
        work = _Work(job, log)
        waits = iter(WAIT_SECONDS)
        while True:
            try:
                work.submit()
                return log.end("done")
            except TargetProblem as problem:
                if log.progressed:
                    waits = iter(WAIT_SECONDS)
                had_begun = log.reached or isinstance(problem, ConnectionLost)
                wait = next(waits, None) if had_begun and problem.may_pass else None
                if wait is None:
                    return log.end("failed", problem.finding, problem.remedy, problem.code)
                log.wait(problem, wait)
            except BadInput as error:
                return log.end("failed", str(error), None, "bad input")
            except OSError as error:
                text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
                return log.end("failed", text, "Check free disk space and permissions, then: medmae job resume "
                                               f"{job.id}", "disk full" if error.errno == 28 else "file")
            except Exception as error:  # noqa: BLE001 - the last line of defence: recorded whole, told in a sentence
                traceback.print_exc()
                return log.end("failed", f"{type(error).__name__}: {error}",
                               f"This is a fault of MedMAE. Details: {job.mirror / FOLDER / 'log.txt'}", "fault")


class _Work:
    """What is to be done for a job; what was done in an earlier attempt is not done again."""

    def __init__(self, job: Job, log: _Log) -> None:
        self.job, self.log = job, log
        self._collected: Upload | None = None

    def submit(self) -> None:
        """Do what is missing."""
        self.job = self.job.refreshed()
        if self.job.runs_here:
            self._start_here()
            return
        transport = connect(self.job.target)
        self.log.report("connecting", 0, 0)
        folder = transport.call("probe.make_folder", {"folder": self.job.target.folder})["folder"]
        self.log.reached = self.log.progressed = True
        self._start_there(transport, folder)

    def _start_here(self) -> None:
        """Run in the mirror itself, with the files where they are."""
        self.job = self.job.replace(folder=str(self.job.mirror))
        self.log.report(STARTING, 0, 0)
        python = sys.executable if self.job.target.python == Target.python else self.job.target.python
        self._start(_engine(), python)

    def _start_there(self, transport: Transport, folder: str) -> None:
        from medmae.jobs.code import ensure_code
        from medmae.jobs.environment import ensure_environment

        self.log.report("code", 0, 0)
        code = ensure_code(transport, folder)
        python = ensure_environment(transport, folder, self.log.report)
        if self.job.folder is None or self._is_gone(transport):
            self._bring(transport, folder)
        self.log.report(STARTING, 0, 0)
        self._start(code, python)

    def _is_gone(self, transport: Transport) -> bool:
        """Whether somebody has deleted the folder of the run there; all that it needs is still here."""
        asked = {self.job.id: {"run": self.job.folder, "have": None}}
        return bool(transport.call("runs.poll", {"runs": asked})["runs"][self.job.id].get("missing"))

    def _bring(self, transport: Transport, folder: str) -> None:
        """Bring the data of the run to the target and make its folder there."""
        from medmae.jobs.collecting import collect
        from medmae.jobs.transfer import upload

        job = self.job
        if self._collected is None:
            spec = RunFolder(job.mirror).spec
            self._collected = collect(job.kind, spec["config"], spec["inputs"], job.mirror, self.log.report)
        upload(transport, folder, self._collected, self.log.report)
        files = {name: [blob.sha256, blob.suffix] for name, blob in self._collected.files.items()}
        known_there = {"id": job.id, "kind": job.kind, "created": job.created, "parts": job.parts}
        made = transport.call("runs.create", {"folder": folder, "id": job.id, "spec": self._collected.spec,
                                              "job": known_there, "files": files}, timeout_s=SILENCE_SECONDS)
        self.job = job.replace(folder=made["run"])

    def _start(self, code: str, python: str) -> None:
        how = _how_to_start(self.job, code, python)
        operate(self.job.target, "runs.start", {"run": self.job.folder, **how}, SILENCE_SECONDS)


def _engine() -> str:
    import medmae

    return str(Path(medmae.__file__).resolve().parents[1])


def _how_to_start(job: Job, code: str, python: str) -> dict[str, Any]:
    """What `runs.start` needs to know."""
    if os.name == "nt" and job.runs_here:
        return {"command": [python, "-m", "medmae.run", str(job.mirror)]}
    from medmae.jobs.launching import LaunchPlan, launch_script

    assert job.folder is not None
    plan = LaunchPlan(run=job.folder, code=code, python=python, kind=job.kind, parts=job.parts)
    return {"script": launch_script(job.target, plan), "scheduler": "slurm" if job.target.kind == "slurm" else None}


class _Log:
    """Writes how far the submission is, not too often."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.reached = False  # in any attempt
        self.progressed = False  # in this one
        self._now = Submission(stage="connecting", pid=os.getpid(), pid_start=process_start(os.getpid()))
        self._stage_began = self._written = time.monotonic()
        self._done_at_begin = 0
        _write(job, self._now)

    def report(self, stage: str, done: int, total: int) -> None:
        """Take what a step of the work says."""
        now = time.monotonic()
        is_new = stage != self._now.stage or self._now.error is not None
        if is_new:
            self._stage_began, self._done_at_begin = now, done
        elif now - self._written < REPORT_EVERY_SECONDS and done != total:
            return
        seconds, gone = now - self._stage_began, done - self._done_at_begin
        eta_s = round(seconds / gone * (total - done), 1) if gone > 0 and total > done else None
        self._write(stage=stage, done=done, total=total, eta_s=eta_s, error=None, remedy=None, code=None)

    def wait(self, problem: TargetProblem, seconds: float) -> None:
        """Say what is being waited for, and wait."""
        self.progressed = False
        self._write(error=problem.finding, remedy=f"Trying again in {seconds:.0f} s.", code=problem.code)
        time.sleep(seconds)

    def end(self, stage: str, error: str | None = None, remedy: str | None = None,
            code: str | None = None) -> Submission:
        """Say how it ended."""
        self._write(stage=stage, error=error, remedy=remedy, code=code, eta_s=None)
        return self._now

    def _write(self, **changes: Any) -> None:
        self._now = dataclasses.replace(self._now, **changes)
        self._written = time.monotonic()
        _write(self.job, self._now)


def _write(job: Job, submission: Submission) -> None:
    write_json(job.mirror / RECORD, to_json(dataclasses.replace(submission, updated=time.time())))


def main() -> None:
    """Entry point of ``python -m medmae.jobs.submission ID``."""
    signal.signal(signal.SIGTERM, _end)
    perform(load_job(sys.argv[1]))


def _end(number: int, _frame: object) -> None:
    """As an exception, so that no connection, upload or converting process is left behind."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
