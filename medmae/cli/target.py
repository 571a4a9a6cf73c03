"""``medmae target``: the computers that run jobs."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from medmae.cli import options, tables
from medmae.cli.app import DONE, FAILED, say
from medmae.errors import BadInput

if TYPE_CHECKING:
    from medmae.jobs.check import Check
    from medmae.jobs.target import Target


@click.group("target", short_help="The computers that run jobs: add, list, check, clean and remove them.")
def command() -> None:
    """The computers that run jobs: this one (called local), others over SSH, and Slurm clusters.

    \b
    Examples:
      medmae target add gpu-box --kind ssh --host gpu-box.example.org
      medmae target check gpu-box
    """


@command.command("add", cls=options.Command)
@click.argument("name")
@click.option("--kind", type=click.Choice(("local", "ssh", "slurm")), help="This computer, another over SSH, or a "
              "Slurm cluster (over SSH with --host, or the one whose login node this is).  [default: ssh with --host]")
@click.option("--host", metavar="HOST", help="As for ssh: a name in ~/.ssh/config, or user@address.")
@click.option("--folder", metavar="DIR", help="For everything of MedMAE there; relative to the home folder, or "
              "absolute.  [default: medmae]")
@click.option("--environment", type=click.Choice(("venv", "python")), help="venv: make a virtual environment with the "
              "pinned packages; python: use --python as it is.  [default: venv]")
@click.option("--python", metavar="PROGRAM", help="A Python there, 3.11 or newer.  [default: python3]")
@click.option("--preamble", multiple=True, metavar="LINE...", help="Lines of sh before everything there, such as "
              "'module load python/3.11'.")
@click.option("--container", metavar="WORDS", help="Put before Python when a job runs, such as 'apptainer exec --nv "
              "image.sif'; quoted as for a shell.")
@click.option("--wheelhouse", metavar="DIR", help="A folder there with wheels; packages are installed from it alone.")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="Graphics cards of one node that a job uses; 0: "
              "computes without.  [default: 1]")
@click.option("--nodes", type=click.IntRange(min=1), metavar="N", help="Slurm: computers a job uses.  [default: 1]")
@click.option("--cpus", type=click.IntRange(min=1), metavar="N", help="Processor cores on each node.")
@click.option("--partition", metavar="NAME", help="Slurm: the partition.  [default: the cluster's]")
@click.option("--account", metavar="NAME", help="Slurm: the account to charge.")
@click.option("--time", metavar="TIME", help="Slurm: limit of one go, such as 1-12:00:00; a job that needs longer is "
              "requeued and goes on.")
@click.option("--sbatch", multiple=True, metavar="OPTION...", help="Slurm: further options, written with '=': "
              "--sbatch=--mem=64G")
@click.option("--replace", is_flag=True, help="Change a target of that name; what is not given stays as it is.")
@options.as_json
def add_command(name: str, replace: bool, as_json: bool, **given: Any) -> None:
    """Remember a target, so that jobs can be given to it by name. Nothing is connected; see: medmae target check.

    No password is ever asked for or kept: MedMAE signs in as your own ssh does, with its keys, agent and jump hosts.

    \b
    Examples:
      medmae target add gpu-box --host me@gpu-box.example.org --gpus 2
      medmae target add cluster --kind slurm --host login.example.org --partition gpu --time 1-00:00:00 \\
        --preamble 'module load python/3.11' --folder /scratch/me/medmae --sbatch=--mem=64G
      medmae target add gpu-box --replace --gpus 4
    """
    from medmae.config import from_json, to_json
    from medmae.jobs.targets import add_target, find_target

    facts = {key: value for key, value in given.items() if value not in (None, ())}
    if "container" in facts:
        facts["container"] = _words(facts["container"])
    before = find_target(name) if replace else None
    if before is not None:
        facts = {**to_json(before), **facts}
    elif "kind" not in facts:
        facts["kind"] = "ssh" if "host" in facts else "local"
    from medmae.jobs.target import Target

    target = from_json(Target, {**facts, "name": name}, "target")
    add_target(target, replace=replace)
    if as_json:
        click.echo(json.dumps(to_json(target), indent=1))
    else:
        say(f"Target {name} is kept. See whether it is ready: medmae target check {name}")


@command.command("list", cls=options.Command)
@options.as_json
def list_command(as_json: bool) -> None:
    """List the targets.

    \b
    Example:
      medmae target list --json
    """
    from medmae.config import to_json
    from medmae.jobs.targets import list_targets

    targets = list_targets()
    if as_json:
        click.echo(json.dumps([to_json(target) for target in targets], indent=1))
    else:
        tables.show(["name", "kind", "host", "folder", "environment", "GPUs", "nodes", "partition", "time"],
                    [[target.name, target.kind, target.host, target.folder if target.kind != "local" else None,
                      target.environment if target.environment == "venv" else " ".join((*target.container,
                                                                                        target.python)),
                      target.gpus, target.nodes, target.partition, target.time] for target in targets])


@command.command("check", cls=options.Command)
@click.argument("name")
@click.option("--accept-host-key", "fingerprint", metavar="SHA256:...", help="Accept the host key with exactly this "
              "fingerprint, which its administrator has told you; asked for otherwise.")
@options.as_json
def check_command(name: str, fingerprint: str | None, as_json: bool) -> int:
    """Is a target ready for jobs, and if not, what to do? Makes MedMAE's folder there if it is not there yet.

    The host key of a computer that is not known yet is shown and kept only after your yes. Exit code 0 when jobs can
    run (warnings allowed), 1 when not.

    \b
    Examples:
      medmae target check gpu-box
      medmae target check gpu-box --accept-host-key SHA256:mVPwvezndPv/ARoIadVY98vAC0g+P/5633yTC4d/wXE
    """
    from medmae.jobs.targets import get_target

    target = get_target(name)
    if fingerprint is not None:
        _accept(target, fingerprint)
    checks = _checks(target, aloud=not as_json)
    if not as_json and checks[0].code == "unknown host key" and sys.stdin.isatty() and _accepted_by_hand(target):
        checks = _checks(target, aloud=True)
    ready = all(check.outcome != "failed" for check in checks)
    if as_json:
        click.echo(json.dumps({"target": name, "ready": ready, "checks": list(map(dataclasses.asdict, checks))},
                              indent=1))
    else:
        click.echo(f"{name} is ready for jobs." if ready else f"{name} is not ready for jobs yet; mend what failed.")
    return DONE if ready else FAILED


@command.command("clean", cls=options.Command)
@click.argument("name")
@options.as_json
def clean_command(name: str, as_json: bool) -> None:
    """Delete images and models on a target that no job there needs any more.

    They stay there when a job is removed, so that another job with the same cases need not send them again. What a job
    that is still there reads is kept, whatever its state.

    \b
    Example:
      medmae target clean gpu-box
    """
    from medmae.jobs.cleaning import clean
    from medmae.jobs.targets import get_target

    cleaned = clean(get_target(name))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(cleaned), indent=1))
    else:
        say(f"{cleaned.removed} files ({cleaned.removed_bytes / 2**20:.1f} MiB) on {name} are deleted; jobs there need "
            f"{cleaned.kept} others ({cleaned.kept_bytes / 2**20:.1f} MiB).")


@command.command("remove", cls=options.Command)
@click.argument("name")
@options.as_json
def remove_command(name: str, as_json: bool) -> None:
    """Forget a target. Nothing on it is touched, and jobs that were given to it can still be followed.

    \b
    Example:
      medmae target remove gpu-box
    """
    from medmae.jobs.targets import remove_target

    remove_target(name)
    if as_json:
        click.echo(json.dumps({"removed": name}))
    else:
        say(f"Target {name} is removed.")


def _words(text: str) -> list[str]:
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInput(f"--container {text!r} cannot be split into words ({error}). Quote it as for a shell.") from None


def _checks(target: Target, *, aloud: bool) -> list[Check]:
    """All findings; `aloud`, each is shown as soon as it is known, for some take a while."""
    from medmae.cli.doctor import line
    from medmae.jobs.checks import findings

    checks = []
    for check in findings(target):
        checks.append(check)
        if aloud:
            click.echo(line(check.name, check.outcome, check.finding, check.remedy))
    return checks


def _accept(target: Target, fingerprint: str) -> None:
    """Keep the host key of that fingerprint, if the host shows it now."""
    from medmae.jobs.known_hosts import accept, scan
    from medmae.jobs.problems import TargetProblem

    keys = scan(target)
    chosen = [key for key in keys if key.fingerprint == fingerprint]
    if not chosen:
        shown = ", ".join(f"{key.fingerprint} ({key.type})" for key in keys)
        raise TargetProblem("unknown host key", f"{target.host} shows no host key of that fingerprint, but {shown}.",
                            "Nothing was accepted. Ask its administrator: it may be another computer in its place.")
    accept(target, chosen)


def _accepted_by_hand(target: Target) -> bool:
    """Show the fingerprints and ask; nothing is accepted without a yes."""
    from medmae.jobs.known_hosts import accept, scan

    keys = scan(target)
    tables.show([f"host key of {target.host}", "fingerprint"], [[key.type, key.fingerprint] for key in keys])
    if not click.confirm("Are these what its administrator tells you?", default=False):
        return False
    accept(target, keys)
    return True
