"""Starting, continuing and executing run folders for the commands, and leaving nothing useless behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from medmae.cli.app import BAD_INPUT, FAILED, say
from medmae.cli.progress import shown
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.folder_lock import has_writer, remove_empty
from medmae.run_folder import Kind, RunFolder

MAY_CHANGE_ON_RESUME = ("device", "device_batch_size", "workers", "jobs")
COMPUTED = ("checkpoints", "model", "points", "folds")  # never removed, whatever turns out to be bad later
BuildConfig = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Failed(click.ClickException):
    """The work failed for another reason than bad input: exit code 1."""

    exit_code = FAILED


@dataclass(frozen=True)
class Request:
    """What a command was asked to run.

    `given` and `inputs` hold only what was named on the command line; `build_config` turns given values into the
    whole resolved configuration. `as_begun` tells the whole configuration of a run from its specification, with what
    options had as their values before they existed. `may_grow` names lists and tables that a resumed run may be given
    more of. Only a run on a target needs no `out`.
    """

    kind: Kind
    out: Path | None
    resume: bool
    given: Mapping[str, Any]
    inputs: Mapping[str, Any]
    build_config: BuildConfig
    check_inputs: Callable[[Mapping[str, Any]], None]
    as_begun: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    may_grow: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The run folder of a run here."""
        assert self.out is not None  # the command line asks for it
        return self.out


def perform(request: Request) -> RunFolder:
    """Start or continue the run of `request` in this process, showing its progress.

    Raises:
        BadInput: nothing usable was asked for; a folder that was made for it is gone again, and a run that was begun
            before is specified as it was.
        Failed: the run failed; its folder stays, with the log and what was computed.
    """
    with clean_output(request.folder):
        if not _is_begun(request):
            run = _begin(request)
            execute(run, request.kind)
            return run
        run = RunFolder.open(request.folder)
        before = run.spec
        try:
            _respecify(run, request)
            execute(run, request.kind)
        except BadInput:
            if run.spec != before:
                write_json(run.spec_file, before)
            raise
        return run


def execute(run: RunFolder, title: str) -> None:
    """Execute `run` here.

    Raises:
        BadInput, Failed: with the reason that the run states.
    """
    with shown(run, title):
        from medmae.run import execute as execute_run  # imports torch: the progress display is up already

        code = execute_run(run.path)
    state = run.state()
    if code == BAD_INPUT:
        raise BadInput(str(state.get("reason")))
    if code != 0:
        raise Failed(f"{state.get('reason')}\n{state.get('remedy') or ''}\nLog: {run.log_file}")


@contextmanager
def temporary_run(kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[RunFolder]:
    """A run folder that is of no use afterwards; it is kept only when the run fails, for its log."""
    folder = Path(tempfile.mkdtemp(prefix=f"medmae-{kind}-"))
    keep = False
    try:
        yield RunFolder.create(folder, kind, config, inputs)
    except Failed:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def given(**values: Any) -> dict[str, Any]:
    """Only the values that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None and value != ()}


def absolute(path: Path | None) -> str | None:
    """A path as it must stand in a run folder: the run may be continued from elsewhere."""
    return None if path is None else str(path.expanduser().absolute())


def model_reference(text: str | None) -> str | None:
    """A model given as a path becomes absolute; ``none`` and names in the registry stay as they are."""
    if text is None or text == "none" or not Path(text).expanduser().exists():
        return text
    return absolute(Path(text))


def describe(run: RunFolder) -> dict[str, Any]:
    """The outcome of a training run, as ``--json`` prints it."""
    state = run.state()
    records = [record for record in run.progress() if "step" in record]
    return {"run": str(run.path), "state": state["state"], "step": state.get("step"), "total": state.get("total"),
            "last": records[-1] if records else None,
            "model": str(run.model) if run.model.is_dir() else None,
            "report": str(run.report) if run.report.is_file() else None}


def conclude(run: RunFolder, command: str) -> None:
    """Say on stdout how a training run ended and what to do next."""
    outcome = describe(run)
    if outcome["state"] == "stopped":
        where = f"at step {outcome['step']} of {outcome['total']}" if outcome["total"] else "before the first step"
        click.echo(f"Stopped as asked {where}. "
                   f"Continue with: medmae {command} --resume --out {run.path}")
        return
    click.echo(f"Done: {run.path}")
    for what in ("model", "report"):
        if outcome[what]:
            click.echo(f"  {what}: {outcome[what]}")


def _is_begun(request: Request) -> bool:
    if not request.resume:
        return False
    if (request.folder / "spec.json").is_file():
        return True
    if request.folder.is_dir() and any(request.folder.iterdir()):
        RunFolder.open(request.folder)  # raises: there is something else in that folder
    if not request.inputs:
        raise BadInput(f"There is no run in {request.folder} to continue. Check the path given with --out.")
    say(f"There is no run in {request.folder} yet: starting it.")
    return False


def _begin(request: Request) -> RunFolder:
    request.check_inputs(request.inputs)
    return RunFolder.create(request.folder, request.kind, request.build_config(request.given), request.inputs)


def _respecify(run: RunFolder, request: Request) -> None:
    """Add to a run's specification what a resume may change or add.

    Raises:
        BadInput: it is of another kind, or the request contradicts it.
    """
    spec = run.spec
    if spec.get("kind") != request.kind:
        raise BadInput(f"{run.path} holds a run of kind '{spec.get('kind')}', not '{request.kind}'. "
                       f"Continue it with: medmae {spec.get('kind')} --resume --out {run.path}")
    asked = request.build_config({**spec["config"], **request.given})
    changed = [f"{name}={before.get(name)!r} (not {value!r})"
               for before, after in ((_flat(request.as_begun(spec)), _flat(asked)), (spec["inputs"], request.inputs))
               for name, value in after.items()
               if value != before.get(name) and name.rpartition(".")[2] not in MAY_CHANGE_ON_RESUME
               and not _has_grown(name, value, before, request.may_grow)]
    if changed:
        raise BadInput(f"The run {run.path} was started with {', '.join(changed)}. --resume continues it unchanged: "
                       "leave these options out, or start a new run with another --out.")
    wanted = {**spec, "config": dict(asked), "inputs": {**spec["inputs"], **request.inputs}}
    if wanted != spec:
        write_json(run.spec_file, wanted)


def _has_grown(name: str, value: Any, before: Mapping[str, Any], may_grow: Sequence[str]) -> bool:
    """Whether the list or table `name` may grow and has all that it had, with the same values.

    An empty list meant a choice that grows too. A flat table ("of_arms.scratch") grows by new entries.
    """
    table, dot, _ = name.partition(".")
    if table not in may_grow:
        return False
    if dot:
        return name not in before
    was = before.get(name)
    if isinstance(value, Mapping):
        return all(value.get(entry) == one for entry, one in (was or {}).items())
    return isinstance(value, list) and set(was or ()) <= set(value)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys with dots, as ``--set`` names them."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


@contextmanager
def clean_output(out: Path | None) -> Iterator[None]:
    """When the block finds the input bad before anything was computed, remove `out` and its parents as far as the block
    made them.
    """
    made = [] if out is None else [folder for folder in (out, *out.parents) if not folder.exists()]
    was_empty = out is not None and out.is_dir() and not any(out.iterdir())
    try:
        yield
    except BadInput:
        if out is not None and (any((out / name).exists() for name in COMPUTED) or _is_of_another_process(out)):
            raise
        if out is not None and has_writer(out):
            raise
        if made:
            shutil.rmtree(made[0], ignore_errors=True)
            remove_empty(made[1:])  # another run may have its folder in them by now
        elif out is not None and was_empty:
            for entry in out.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise


def _is_of_another_process(out: Path) -> bool:
    """Whether somebody else began a run in `out` meanwhile."""
    run = RunFolder(out)
    if not run.spec_file.exists():
        return False
    return not run.state_file.exists() or read_json(run.state_file).get("pid") != os.getpid()


def refuse_filled(out: Path) -> None:
    """Results are not mixed with what is there already.

    Raises:
        BadInput: `out` is a file, or a folder with something in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"The output {out} exists and is not empty. Choose another folder.")
