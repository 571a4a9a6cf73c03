"""Bringing home what a job made: verified by hash, a model also checked like any stranger's, and installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import PARTIAL, write_json
from medmae.folder_lock import only_writer
from medmae.jobs.following import FETCHED, Status, follow
from medmae.jobs.job import Job
from medmae.jobs.problems import TargetProblem
from medmae.jobs.submission import FOLDER, RESULTS
from medmae.models.model_files import ModelFiles
from medmae.models.registry import install_model, load_info
from medmae.worker.child import environment_of_worker

WANTED = {
    "pretrain": ("model", "report.html", "corpus/skipped.csv", "corpus/preparation.json"),
    "finetune": ("model", "report.html", "validation.json", "cross_validation.json"),
    "curve": ("results.csv", "cases.csv", "summary.json", "report.html"),
    "segment": (RESULTS, "result.json"),
    "classify": (RESULTS, "result.json"),
    "rank": (RESULTS, "result.json"),
    "evaluate": (RESULTS, "result.json", "report.html")}
LOG, SAMPLES = "log.txt", "samples"  # in the mirror already
MAKES_MODEL = ("pretrain", "finetune")
ENDED = ("done", "stopped", "failed", "interrupted")

Report = Callable[[str, int, int], Any]
Checker = tuple[str, Mapping[str, str]]  # an interpreter and its environment


def fetch(job: Job, *, install: bool = True, name: str | None = None, partial: bool = False,
          report: Report = lambda stage, done, total: None, checker: Checker | None = None) -> Path:
    """Bring the results of a job to the folder that was named for them; doing it again changes nothing.

    Args:
        job: which.
        install: put the model into the registry.
        name: of the model there; default: the job's.
        partial: also of a job that ended before it was done: what there is.
        report: takes stage, done, total.
        checker: the Python with torch that looks at a model; default: the one that this runs in.

    Returns:
        The folder of the results.

    Raises:
        BadInput: the job is not done, its model is not in order, or another model has its name.
        TargetProblem: the target cannot be reached.
    """
    job = job.refreshed()
    status = follow(job)
    _refuse(job, status, partial)
    with only_writer(job.mirror / FOLDER):  # not the mirror itself, into which others that follow the job write
        if not job.runs_here:
            _download(job, status, report, checker)
    is_whole = job.kind in MAKES_MODEL and status.state == "done"
    if is_whole:
        report("checking", 0, 0)
        _check(job, checker)
    folder = _deliver(job)
    if is_whole and install:
        _install(job, name or job.name)
    return folder


def _refuse(job: Job, status: Status, partial: bool) -> None:
    if status.state == "unreachable":
        raise TargetProblem("connection lost", f"The results cannot be fetched now: {status.reason}",
                            status.remedy or "")
    has_parts = partial or (status.state == "failed" and job.kind not in MAKES_MODEL)  # some cases, not all
    if status.state == "done" or (has_parts and status.state in ENDED and job.folder):
        return
    if status.state in ENDED:
        raise BadInput(f"The job {job.id} is {status.state}, so that its results are not whole"
                       f"{': ' + status.reason if status.reason else '.'} Go on with it (medmae job resume {job.id}), "
                       "or fetch what there is with --partial.")
    raise BadInput(f"The job {job.id} is {status.state} still; there is nothing to fetch yet. Wait for it: medmae job "
                   f"status {job.id} --wait")


def _download(job: Job, status: Status, report: Report, checker: Checker | None) -> None:
    """Into the mirror, by way of a folder in which nothing counts before all of it is there."""
    from medmae.jobs.restoring import CASES_FILE, restore_names
    from medmae.jobs.transfer import download
    from medmae.jobs.transport import connect

    if (job.mirror / FETCHED).is_file():
        return
    assert job.folder is not None
    arriving = job.mirror / f"{PARTIAL}arriving"
    arriving.mkdir(exist_ok=True)
    download(connect(job.target), job.folder, arriving, WANTED[job.kind], report)
    if (job.mirror / CASES_FILE).is_file():  # a job that was submitted elsewhere keeps the neutral names
        restore_names(job.mirror, arriving, Path(job.out) if job.out else job.mirror / RESULTS)
    if (arriving / "model").is_dir():
        _check_model(job, arriving / "model", checker)
    for name in WANTED[job.kind]:
        if (arriving / name).exists():
            _move(arriving / name, job.mirror / name)
    shutil.rmtree(arriving)
    if status.state == "done":
        write_json(job.mirror / FETCHED, {"files": sorted(name for name in WANTED[job.kind]
                                                          if (job.mirror / name).exists())})


def _move(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    source.replace(place)


def _check(job: Job, checker: Checker | None) -> None:
    model = job.mirror / "model"
    if not model.is_dir():
        raise BadInput(f"The job {job.id} is done but left no model. Look into its log: medmae job logs {job.id}")
    if job.runs_here:
        _check_model(job, model, checker)


def _check_model(job: Job, model: Path, checker: Checker | None) -> None:
    """Look at a model in a process of its own: neither torch nor a model from elsewhere comes into this one.

    A computer on which nothing can compute looks at the description and the hash alone.

    Raises:
        BadInput: it is not in order.
    """
    python, environment = checker or (sys.executable, environment_of_worker())
    told = subprocess.run([python, "-m", "medmae.cli", "model", "check", str(model), "--json"], env=dict(environment),
                          capture_output=True, text=True, check=False,
                          creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
    if told.returncode != 0 and "No module named" in told.stderr:
        files = ModelFiles(model)
        files.verified_weights(files.info())
        return
    try:
        checks = json.loads(told.stdout)["checks"]
    except (ValueError, KeyError):
        raise BadInput(f"The model of the job {job.id} could not be checked: {told.stderr.strip()[-500:]} Try to fetch "
                       "it again.") from None
    wrong = [check["found"] for check in checks if not check["ok"]]
    if wrong:
        raise BadInput(f"The model of the job {job.id} is not in order and was not taken: {wrong[0]}")


def _deliver(job: Job) -> Path:
    """Put the results where the user wants them."""
    if job.out is None:
        return job.mirror
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in (*WANTED[job.kind], LOG, SAMPLES):
        source = job.mirror / name
        if name == RESULTS and source.is_dir():
            shutil.copytree(source, out, dirs_exist_ok=True)
        elif source.is_dir():
            shutil.copytree(source, out / name, dirs_exist_ok=True)
        elif source.is_file():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, out / name)
    return out


def _install(job: Job, name: str) -> None:
    """Into the registry; a model that is there already is left where it is the same."""
    from medmae.home import models_folder

    model = job.mirror / "model"
    there = models_folder() / name
    if (there / "model.json").is_file() and load_info(there).weights_sha256 == load_info(model).weights_sha256:
        return
    install_model(model, name=name)
