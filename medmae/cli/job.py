"""``medmae job``: runs on targets, from submitting to fetching."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medmae.cli import options, tables
from medmae.cli.app import say
from medmae.cli.progress import duration

if TYPE_CHECKING:
    from medmae.jobs.job import Job

TARGET = click.option("--target", metavar="NAME", help="Also jobs of that target which another computer submitted.")
FOLLOW_EVERY_SECONDS = 2.0
SUBMITTED = ("pretrain", "finetune", "segment", "classify", "evaluate", "curve", "rank")


@click.group("job", short_help="Runs on other computers: submit, list, follow, stop, resume, fetch.")
def command() -> None:
    """Runs on targets (medmae target list): submit, list, follow, stop, resume and fetch them.

    A job goes on when this computer sleeps, loses its connection or is switched off. A job is named by its id, by an
    end of the id that is its own, or by its name.
    """


@command.command("submit", short_help="Submit a command to a target.",
                 context_settings={"allow_interspersed_args": False})  # what follows TARGET is for COMMAND
@click.argument("target")
@click.argument("what", type=click.Choice(SUBMITTED), metavar="COMMAND")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="OPTIONS...")
@click.pass_context
def submit_command(context: click.Context, target: str, what: str, arguments: tuple[str, ...]) -> None:
    """Submit a command to a target: the same as medmae COMMAND OPTIONS... --target TARGET.

    The configuration and the inputs are checked as for a run here before anything is sent; then it returns at once.

    \b
    Examples:
      medmae job submit gpu-box finetune --dataset dataset.json --encoder ct --cases 8 --name liver
      medmae job submit cluster segment --model liver --images archive/ --parts 16 --wait --out results
      medmae job submit local pretrain --images scans/ --method gl-mae --preset tiny --json
    """
    from medmae.cli.app import COMMANDS
    from medmae.cli.app import medmae as program

    assert what in COMMANDS
    found = program.get_command(context, what)
    assert found is not None
    found.main([*arguments, "--target", target], prog_name=f"medmae {what}", standalone_mode=False)


@command.command("list", cls=options.Command, short_help="The jobs and how they stand now.")
@TARGET
@options.as_json
def list_command(target: str | None, as_json: bool) -> None:
    """List the jobs, the newest first, with how they stand now.

    All targets are asked at once; one that does not answer within seconds is shown as unreachable, with what was
    last known.

    \b
    Examples:
      medmae job list
      medmae job list --target gpu-box --json
    """
    from medmae.cli.elsewhere import describe
    from medmae.jobs.following import follow_all
    from medmae.jobs.job import list_jobs

    jobs = [job for job in list_jobs() if target in (None, job.target.name)]
    if target is not None:
        from medmae.jobs.attaching import jobs_on

        known = {job.id for job in jobs}
        jobs += [job for job in jobs_on(_target(target)) if job.id not in known]
        jobs.sort(key=lambda job: job.id, reverse=True)
    found = follow_all(jobs)
    if as_json:
        click.echo(json.dumps([describe(job, found[job.id]) for job in jobs], indent=1))
    elif not jobs:
        say("There are no jobs. Submit one with --target, for example: medmae finetune ... --target gpu-box")
    else:
        tables.show(["id", "kind", "target", "state", "step", "left", "name"],
                    [_row(job, found[job.id]) for job in jobs])


def _row(job: Job, status: Any) -> list[Any]:
    state = f"{status.state} (was {status.last_state})" if status.last_state else status.queue or status.state
    counted = status.total and status.state != "submitting"
    return [job.id, job.kind, job.target.name, state, f"{status.step}/{status.total}" if counted else None,
            duration(status.eta_s) if status.eta_s else None, None if job.name == job.id else job.name]


def _of_job(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("job_id", metavar="JOB")(TARGET(function))


@command.command("status", cls=options.Command, short_help="How a job stands; follow it to its end.")
@_of_job
@click.option("--wait", is_flag=True, help="Follow it to its end with progress bars, then fetch the results; Ctrl-C "
                                           "only ends the watching.")
@options.as_json
def status_command(job_id: str, target: str | None, wait: bool, as_json: bool) -> None:
    """Say how a job stands.

    \b
    Examples:
      medmae job status 20261122-101530-finetune-3fa2
      medmae job status 3fa2 --wait
      medmae job status 3fa2 --target gpu-box --json      (submitted from another computer)
    """
    from medmae.cli.elsewhere import conclude, describe, sentence
    from medmae.jobs.following import follow

    job = _job(job_id, target)
    if wait:
        conclude(job, as_json)
        return
    status = follow(job)
    click.echo(json.dumps(describe(job, status), indent=1) if as_json else sentence(job, status))


@command.command("logs", cls=options.Command, short_help="The log of a job.")
@_of_job
@click.option("--follow", "-f", "is_followed", is_flag=True, help="Go on until the job ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
def logs_command(job_id: str, target: str | None, is_followed: bool, tail: int | None) -> None:
    """Print the log of a job, and what it said outside of it where it ended before it began.

    \b
    Examples:
      medmae job logs 3fa2 --tail 20
      medmae job logs 3fa2 --follow
    """
    from medmae.jobs.following import follow, log_file
    from medmae.jobs.told import printable

    job = _job(job_id, target)
    status = follow(job)
    file, shown = log_file(job), 0
    if tail is not None:
        shown = _begin_of_last(file, tail)
    while True:
        now = log_file(job)
        if now != file or (now is not None and now.stat().st_size < shown):  # the run has begun, or begun anew
            file, shown = now, 0
        text = b"" if file is None else _from(file, shown)
        whole = text if status.is_final or not is_followed else text[:text.rfind(b"\n") + 1]
        shown += len(whole)
        for line in printable(whole.decode(errors="replace")).splitlines():
            click.echo(line)
        if status.is_final or not is_followed:
            return
        time.sleep(FOLLOW_EVERY_SECONDS)
        status = follow(job)


def _from(file: Path, begin: int) -> bytes:
    with open(file, "rb") as stream:
        stream.seek(begin)
        return stream.read()


def _begin_of_last(file: Path | None, lines: int) -> int:
    """Where the last `lines` lines of a file begin."""
    whole = [] if file is None else file.read_bytes().splitlines(keepends=True)
    return sum(map(len, whole[:max(0, len(whole) - lines)]))


@command.command("stop", cls=options.Command, short_help="Stop a job, with a checkpoint.")
@_of_job
@click.option("--hard", is_flag=True, help="End its processes within seconds; what is not in a checkpoint is lost.")
@options.as_json
def stop_command(job_id: str, target: str | None, hard: bool, as_json: bool) -> None:
    """Stop a job: a run ends at its next step, with a checkpoint from which it can be resumed.

    \b
    Examples:
      medmae job stop 3fa2
      medmae job stop 3fa2 --hard
    """
    from medmae.cli.elsewhere import describe, sentence
    from medmae.jobs.following import follow
    from medmae.jobs.stopping import stop

    job = _job(job_id, target)
    stop(job, hard=hard)
    status = follow(job)
    click.echo(json.dumps(describe(job, status), indent=1) if as_json else sentence(job, status))


@command.command("resume", cls=options.Command, short_help="Go on with a job.")
@_of_job
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="With another number of graphics cards a node.")
@click.option("--nodes", type=click.IntRange(min=1), metavar="N", help="With another number of nodes.")
@click.option("--time", metavar="TIME", help="With another limit of one go, as Slurm writes it.")
@click.option("--partition", metavar="NAME", help="In another partition.")
@options.as_json
def resume_command(job_id: str, target: str | None, as_json: bool, **changes: Any) -> None:
    """Go on with a job: with its submission, or with its run from the last checkpoint.

    \b
    Examples:
      medmae job resume 3fa2
      medmae job resume 3fa2 --gpus 4 --time 2-00:00:00
    """
    from medmae.cli.elsewhere import describe, sentence
    from medmae.jobs.following import follow
    from medmae.jobs.stopping import resume

    job = resume(_job(job_id, target), **{name: value for name, value in changes.items() if value is not None})
    status = follow(job)
    click.echo(json.dumps(describe(job, status), indent=1) if as_json else sentence(job, status))


@command.command("fetch", cls=options.Command, short_help="Bring the results of a job home.")
@_of_job
@click.option("--no-install", is_flag=True, help="Do not put the model into the registry.")
@click.option("--name", metavar="NAME", help="Of the model in the registry.  [default: the job's]")
@click.option("--partial", is_flag=True, help="Also of a job that ended early: what there is.")
@options.out("Where the results go.  [default: as submitted, else the job's folder]", required=False)
@options.as_json
def fetch_command(job_id: str, target: str | None, no_install: bool, name: str | None, partial: bool,
                  out: Path | None, as_json: bool) -> None:
    """Bring the results of a job home, verified by hash; a model is checked and installed.

    \b
    Examples:
      medmae job fetch 3fa2
      medmae job fetch 3fa2 --name liver --out runs/liver
      medmae job fetch 3fa2 --target gpu-box --no-install      (submitted from another computer)
    """
    from medmae.cli.elsewhere import refuse_failures, shown_in_percent
    from medmae.jobs.fetching import fetch

    job = _job(job_id, target)
    if out is not None:
        job = job.replace(out=str(out.expanduser().absolute()))
    with shown_in_percent("fetch") as report:
        folder = fetch(job, install=not no_install, name=name, partial=partial, report=report)
    click.echo(json.dumps({"id": job.id, "results": str(folder)}, indent=1) if as_json else f"Results: {folder}")
    refuse_failures(job, folder)


@command.command("remove", cls=options.Command, short_help="Delete a job, here and on its target.")
@_of_job
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_command(job_id: str, target: str | None, yes: bool) -> None:
    """Delete a job and its folder, here and on its target; results that were fetched elsewhere stay.

    \b
    Example:
      medmae job remove 3fa2 --yes
    """
    from medmae.jobs.stopping import remove

    job = _job(job_id, target)
    if not yes:
        click.confirm(f"Delete the job {job.id} with all that it computed, here and on {job.target.name}?", abort=True,
                      err=True)
    remove(job)
    say(f"Removed {job.id}.")


def _job(job_id: str, target: str | None) -> Job:
    """The job, also one that this computer gets to know now."""
    if target is None:
        from medmae.jobs.job import load_job

        return load_job(job_id)
    from medmae.jobs.attaching import attach

    return attach(job_id, _target(target))


def _target(name: str) -> Any:
    from medmae.jobs.targets import get_target

    return get_target(name)
