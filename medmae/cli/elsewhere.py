"""Runs as jobs: what ``--target`` adds to the commands that run something, and watching a job."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medmae.cli import options
from medmae.cli.app import FAILED, say
from medmae.cli.inference import raise_failures
from medmae.cli.progress import display_of, duration, new_records
from medmae.cli.runs import Failed, Request, refuse_filled
from medmae.cli.scores import show_ranking, show_scores
from medmae.files import read_json
from medmae.run_folder import Kind, RunFolder

if TYPE_CHECKING:  # the modules of jobs are imported where a job is made or looked at
    from medmae.jobs.following import Status
    from medmae.jobs.job import Job

LOOK_EVERY_SECONDS = 2.0
LOOK_HERE_EVERY_SECONDS = 0.3


@dataclass(frozen=True)
class Elsewhere:
    """Where a command shall run instead of here, and how it shall be followed."""

    target: str
    wait: bool
    name: str | None
    parts: int | None

    def perform(self, request: Request, as_json: bool) -> None:
        """Submit the training run of `request`.

        Raises:
            BadInput: as the run here would, before anything is sent.
        """
        _refuse_resume(request.resume)
        request.check_inputs(request.inputs)
        config = request.build_config(request.given)
        self.submit(request.kind, config, request.inputs, request.out, as_json)

    def apply(self, kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any], out: Path | None, resume: bool,
              as_json: bool) -> None:
        """Submit a run that applies a model to images.

        Raises:
            BadInput: as the run here would, before anything is sent.
        """
        _refuse_resume(resume)
        if not inputs.get("images") and not inputs.get("dataset"):
            raise click.UsageError("Missing option '--images'.")
        self.submit(kind, config, inputs, out, as_json)

    def submit(self, kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any], out: Path | None,
               as_json: bool) -> None:
        """Check the inputs, submit the run and say so, or follow it to its end.

        Raises:
            BadInput: there is no such target, or the inputs cannot be used.
            Failed: the job was followed and failed.
        """
        from medmae.jobs.submission import submit
        from medmae.jobs.targets import get_target

        target = get_target(self.target)
        check_inputs(kind, config, inputs, out)
        if out is not None:
            refuse_filled(out)
        job = submit(target, kind, config, inputs, name=self.name, out=out, parts=self.parts)
        if self.wait:
            say(f"Submitted {job.id} to {target.name}.")
            conclude(job, as_json)
        elif as_json:
            click.echo(json.dumps({"id": job.id, "name": job.name, "kind": kind, "target": target.name,
                                   "state": "submitting", "run": str(job.mirror)}, indent=1))
        else:
            click.echo(f"Submitted {job.id} to {target.name}.\n"
                       f"  how it goes: medmae job status {job.id}\n"
                       f"  to the end:  medmae job status {job.id} --wait\n"
                       f"  results:     medmae job fetch {job.id}")


def on_target(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that can run elsewhere; it gets an `Elsewhere`, or None, as `elsewhere`."""
    @options.on_target
    @functools.wraps(function)
    def command(*args: Any, target: str | None, wait: bool, job_name: str | None, **given: Any) -> Any:
        if target is None and (wait or job_name):
            raise click.UsageError("--wait and --name belong to a job: give --target NAME with them.")
        parts = given.pop("parts", None)
        if target is None and parts:
            raise click.UsageError("--parts belongs to a job: give --target NAME with it.")
        elsewhere = None if target is None else Elsewhere(target, wait, job_name, parts)
        return function(*args, elsewhere=elsewhere, **given)
    return command


def _refuse_resume(resume: bool) -> None:
    if resume:
        raise click.UsageError("--resume continues a run of this computer. A job goes on with: medmae job resume ID")


def check_inputs(kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any], out: Path | None) -> None:
    """What a run finds out about its inputs before it opens an image.

    Raises:
        BadInput: the dataset, the model or the images cannot be used.
    """
    from medmae.datasets import load_dataset
    from medmae.models import resolve_model

    models = inputs.get("model") or list(inputs.get("encoders", {}).values()) or inputs.get("encoder") or []
    for model in [models] if isinstance(models, str) else models:
        if model != "none":
            resolve_model(model)
    if kind == "finetune":
        from medmae.config import from_json
        from medmae.finetuning.config import FinetuneConfig
        from medmae.finetuning.planning import make_plan

        make_plan(from_json(FinetuneConfig, config, "finetuning configuration"), inputs)
    elif kind == "evaluate":
        from medmae.inference.evaluate_run import labelled_cases

        labelled_cases(load_dataset(inputs["dataset"]), inputs.get("split") or "test")
    elif kind == "rank":
        from medmae.active_learning.pool import pool_of

        pool_of(inputs, out)
    elif "dataset" in inputs:
        load_dataset(inputs["dataset"])
    elif kind == "pretrain":
        from medmae.pretraining.sources import sources_of_images

        sources_of_images(inputs["images"])
    else:
        from medmae.inference.cases import find_cases

        find_cases(inputs["images"], out)


def watch(job: Job) -> Status:
    """Show how a job goes until nothing more happens by itself."""
    from medmae.jobs.following import follow
    from medmae.jobs.told import progress

    display = display_of(job.kind)
    run, offset, was = RunFolder(job.mirror), 0, ""
    shown: dict[str, Any] = {}
    try:
        while True:
            status = follow(job)
            if status.state in ("submitting", "unreachable", "queued"):
                told = _before_or_between(status)
                if told != shown:
                    display.update(told)
                shown = told
            records, offset = new_records(run, offset)
            for record in records:
                display.update(progress(record))
            if status.state == "stopping" != was:
                display.stopping()
            if status.is_final:
                return status
            was = status.state
            time.sleep(LOOK_HERE_EVERY_SECONDS if job.runs_here or was == "submitting" else LOOK_EVERY_SECONDS)
    finally:
        display.close()


def _before_or_between(status: Status) -> dict[str, Any]:
    """What there is to show while no run can be seen; what travels is counted in per cent."""
    what = " ".join(part for part in (status.reason, status.remedy, status.queue) if part)
    if status.state != "submitting":
        return {"stage": status.state, "message": what}
    return {"stage": status.stage, "eta_s": status.eta_s, "message": what, **_percent(status.step or 0, status.total)}


def _percent(done: int, total: int | None) -> dict[str, int]:
    return {"step": 100 * done // total, "total": 100} if total else {}


@contextmanager
def shown_in_percent(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows what fetching reports."""
    display = display_of(title)
    last: dict[str, Any] = {}

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last
        told = {"stage": stage, **_percent(done, total)}
        if told != last:
            display.update(told)
        last = told

    try:
        yield report
    finally:
        display.close()


def conclude(job: Job, as_json: bool, name: str | None = None) -> None:
    """Follow a job to its end, fetch its results and say where they are. Ctrl-C only ends the watching.

    Raises:
        Failed: it failed, or nobody watches any more.
    """
    from medmae.jobs.fetching import MAKES_MODEL, fetch

    try:
        status = watch(job)
    except KeyboardInterrupt:
        say(f"Not watching any more; the job goes on. Stop it with: medmae job stop {job.id}")
        raise click.exceptions.Exit(FAILED) from None
    job = job.refreshed()
    has_results = status.state == "done" or (status.state == "failed" and job.folder and job.kind not in MAKES_MODEL)
    folder = None
    if has_results:
        with shown_in_percent("fetch") as report:
            folder = fetch(job, name=name, report=report)
    if as_json:
        click.echo(json.dumps(describe(job, status) | {"results": None if folder is None else str(folder)}, indent=1))
    elif folder is not None:
        _show_scores(job)
        click.echo(f"Results: {folder}")
    elif status.state == "stopped":
        click.echo(sentence(job, status))
    if status.state in ("failed", "interrupted"):
        raise Failed(f"{status.reason or 'The job did not end well.'}\n{status.remedy or ''}\n"
                     f"Log: medmae job logs {job.id}")
    if folder is not None:
        refuse_failures(job, folder)


def _show_scores(job: Job) -> None:
    result = job.mirror / "result.json"
    show = {"evaluate": show_scores, "rank": show_ranking}.get(job.kind)
    if show is not None and result.is_file():
        show(read_json(result, "result"))


def refuse_failures(job: Job, folder: Path) -> None:
    """End with exit code 1 where a job that is done could not do some of its images.

    Raises:
        Failed: naming each, and why.
    """
    result = job.mirror / "result.json"
    if job.kind in ("segment", "classify", "rank") and result.is_file():
        raise_failures(read_json(result, "result"), folder)


def describe(job: Job, status: Status) -> dict[str, Any]:
    """A job and how it stands, as ``--json`` prints it."""
    return {"id": job.id, "name": job.name, "kind": job.kind, "target": job.target.name, "created": job.created,
            "run": str(job.mirror), **dataclasses.asdict(status)}


def sentence(job: Job, status: Status) -> str:
    """How a job stands, for a person."""
    state = status.state
    if status.last_state:
        seen = "" if status.seen is None else f" {duration(time.time() - status.seen)} ago"
        state += f" (last seen{seen}: {status.last_state})"
    parts = [f"{job.id} on {job.target.name}: {state}"]
    if status.stage and not status.is_final and status.stage != status.state:
        parts.append(status.stage)
    if status.total:
        parts.append(f"{100 * (status.step or 0) // status.total} %" if status.state == "submitting" else
                     f"{status.step} of {status.total}")
    if status.eta_s:
        parts.append(f"{duration(status.eta_s)} left")
    if status.queue:
        parts.append(status.queue)
    why = " ".join(part for part in (status.reason, status.remedy) if part)
    return ", ".join(parts) + (f"\n  {why}" if why else "")


