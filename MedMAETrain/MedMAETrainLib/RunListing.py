"""All runs of training that this computer knows, read from their folders without asking anybody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.home import runs_folder
from medmae.jobs import following, submission
from medmae.jobs import told as telling
from medmae.jobs.job import RECORD as JOB_FILE
from medmae.jobs.job import Job, load_job
from medmae.run_folder import RunFolder
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunPlan import DATA_FOLDER
from MedMAETrainLib.RunRequest import REQUEST_FILE, RunRequest, requestOf
from MedMAETrainLib.RunStatus import WAITING_MARK, RunStatus, lastRecord, readStatus, statusOfJob

KINDS = ("pretrain", "finetune")
RESUMABLE = ("stopped", "failed", "interrupted")
_TELLING = ("spec.json", "state.json", REQUEST_FILE, JOB_FILE, submission.RECORD, following.RECORD, WAITING_MARK,
            "checkpoints")
_LARGEST_DATASET = 1 << 20  # bytes that are read only to tell what a run of the command line learns
TRIAL_MARK = "trial"  # a file in the mirror of a job that only measures a run; it is removed soon
log = logging.getLogger(__name__)


class RunListing:
    """Reads runs; one that has ended is read again only when its files have changed.

    >>> RunListing().entries()[0].status.state
    'done'
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple, RunEntry | None]] = {}

    def entries(self) -> list[RunEntry]:
        """The runs in MedMAE's folder, the newest first. What is damaged hides nothing else."""
        found = [entry for folder in _folders() if (entry := self.entry(folder)) is not None]
        return sorted(found, key=lambda entry: (entry.started, entry.id), reverse=True)

    def entry(self, folder: Path) -> RunEntry | None:
        """The run in a folder; None: there is no run of training."""
        stamps = tuple(_stamp(folder / name) for name in _TELLING)
        known = self._known.get(folder)
        if known is not None and known[0] == stamps:
            return known[1]
        try:
            entry = _read(folder)
        except (BadInput, OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            log.warning("The run %s is damaged: %s", folder, error)
            entry = _damaged(folder, error)
        if entry is None or entry.status.isFinal:
            self._known[folder] = stamps, entry
        return entry


def isAbandoned(folder: Path) -> bool:
    """Whether cases are being handed over into a run folder, or whoever did that was killed in the middle."""
    return (folder / DATA_FOLDER).is_dir() and not (folder / REQUEST_FILE).is_file()


def _folders() -> Iterator[Path]:
    if runs_folder().is_dir():
        yield from (folder for folder in runs_folder().iterdir()
                    if not folder.name.startswith(".") and (folder / "spec.json").is_file()
                    and not (folder / TRIAL_MARK).exists() and not isAbandoned(folder))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(folder: Path) -> RunEntry | None:
    run = RunFolder(folder)
    spec = run.spec
    if spec["kind"] not in KINDS:
        return None
    request = requestOf(folder)
    job = load_job(folder.name) if (folder / JOB_FILE).is_file() else None
    status = _status(run, job, request)
    canResume = status.state in RESUMABLE and (
        job is not None or status.state != "failed" or any(run.checkpoints.glob("*")))
    return RunEntry(
        id=folder.name, kind=spec["kind"], task=_task(spec, request), name=_name(folder, job, request),
        target="" if job is None else job.target.name, folder=folder, started=_started(folder, job, request),
        status=status, model=request and request.installed, project=request and request.project, canResume=canResume)


def _damaged(folder: Path, error: Exception) -> RunEntry | None:
    """A run that cannot be read, but removed; None: Slicer has not started it, so that it may be of any kind."""
    request = requestOf(folder)
    if request is None:
        return None
    return RunEntry(
        id=folder.name, kind="pretrain" if request.task == "pretraining" else "finetune",
        task=request.task or "segmentation", name=request.name, target="", folder=folder,
        started=request.started or "", status=RunStatus("failed", reason=str(error)), model=request.installed,
        project=request.project)


def _status(run: RunFolder, job: Job | None, request: RunRequest | None) -> RunStatus:
    try:
        if job is None or job.runs_here and submission.submission_of(job).stage == "done":
            status = readStatus(run)
        else:
            device = telling.text(lastRecord(run).get("device"))
            status = replace(statusOfJob(following.last_known(job), run.path), device=device)
    except (BadInput, OSError, LookupError, TypeError) as error:  # it can be looked at and removed all the same
        return RunStatus("failed", reason=str(error))
    if status.state == "done" and request is not None and request.problem and request.installed is None:
        return RunStatus("failed", reason=request.problem)
    return status


def _task(spec: dict[str, Any], request: RunRequest | None) -> str:
    if spec["kind"] == "pretrain":
        return "pretraining"
    if request is not None and request.task:
        return request.task
    dataset = Path(spec["inputs"].get("dataset") or "")
    if dataset.is_file() and dataset.stat().st_size <= _LARGEST_DATASET:
        content = read_json(dataset, "data set")
        if isinstance(content, dict) and content.get("task") == "classification":
            return "classification"
    return "segmentation"


def _name(folder: Path, job: Job | None, request: RunRequest | None) -> str:
    return request.name if request is not None else job.name if job is not None else folder.name


def _started(folder: Path, job: Job | None, request: RunRequest | None) -> str:
    if request is not None and request.started:
        return request.started
    seconds = (folder / "spec.json").stat().st_mtime if job is None else job.created
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
