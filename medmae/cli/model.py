"""``medmae model``: the models in the registry."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from medmae.cli import options, tables
from medmae.cli.app import say
from medmae.cli.model_edit import edit_command
from medmae.cli.model_export import export_command
from medmae.cli.model_import import check_command, import_command

if TYPE_CHECKING:
    from medmae.models import ModelInfo


@click.group("model", short_help="List, show, check, edit, install, remove, import and export models.")
def command() -> None:
    """List, show, check, edit, install, remove, import and export models.

    Wherever a command takes a model, a folder, a run folder or a name from this list will do.
    """


@command.command("list", cls=options.Command)
@options.as_json
def list_command(as_json: bool) -> None:
    """List the installed models.

    \b
    Example:
      medmae model list --json
    """
    from medmae.home import models_folder
    from medmae.models import list_models

    models = list_models()
    if as_json:
        click.echo(json.dumps([{"name": name, **dataclasses.asdict(info)} | {"name": name} for name, info in models]))
    elif not models:
        say(f"No models are installed in {models_folder()}. "
            "Install one with: medmae model install FOLDER (a run folder or a model folder).")
    else:
        tables.show(["name", "task", "method", "preset", "modality", "labels"],
                    [[name, info.task, info.method, info.preset, info.modality, _label_names(info)]
                     for name, info in models])


@command.command("show", cls=options.Command)
@click.argument("model")
@options.as_json
def show_command(model: str, as_json: bool) -> None:
    """Show what a model is, what it was trained on and how well it did.

    \b
    Examples:
      medmae model show liver
      medmae model show runs/finetuned --json
    """
    from medmae.models import load_info, resolve_model

    folder = resolve_model(model)
    info = load_info(folder)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(info), indent=1))
        return
    facts: dict[str, Any] = {
        "name": info.name, "folder": folder, "task": info.task, "method": info.method, "preset": info.preset,
        "dimensions": f"{info.spatial_dims}-D", "modality": info.modality, "labels": _label_names(info),
        "spacing (k, j, i)": None if info.spacing_mm is None else " x ".join(f"{s:g}" for s in info.spacing_mm) + " mm",
        "input size": " x ".join(map(str, info.input_size)), "orientation": info.orientation,
        "channels": ", ".join(str(channel.get("name")) for channel in info.channels),
        **{f"labels: {step.replace('_', ' ')}": ", ".join(names) for step, names in info.postprocessing.items()},
        **{f"trained: {name}": _short(value) for name, value in info.training.items()},
        **{f"score: {name}": _short(value) for name, value in info.scores.items()},
        "licence": info.licence, "citation": info.citation, "made by": f"MedMAE {info.medmae}, {info.created}",
    }
    tables.show(["", ""], [[name, value] for name, value in facts.items() if value not in (None, "", [])])


@command.command("install", cls=options.Command)
@click.argument("folder")
@click.option("--name", metavar="NAME", help="The name in the registry.  [default: the model's own]")
@click.option("--replace", is_flag=True, help="Replace an installed model of that name.")
@options.as_json
def install_command(folder: str, name: str | None, replace: bool, as_json: bool) -> None:
    """Copy a model (a model folder, a run folder or a zip) into the registry.

    \b
    Examples:
      medmae model install runs/finetuned --name liver
      medmae model install liver.zip --replace
    """
    from medmae.models import install_model, resolve_model

    installed = install_model(resolve_model(folder), name=name, replace=replace)
    _report(as_json, {"name": installed.name, "folder": str(installed)}, f"Installed {installed.name} in {installed}")


@command.command("remove", cls=options.Command)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove_command(name: str, yes: bool) -> None:
    """Delete a model from the registry.

    \b
    Example:
      medmae model remove liver --yes
    """
    from medmae.models import remove_model

    if not yes:
        click.confirm(f"Delete the model {name} for good?", abort=True, err=True)
    remove_model(name)
    say(f"Removed {name}.")


command.add_command(import_command)
command.add_command(export_command)
command.add_command(check_command)
command.add_command(edit_command)


def _report(as_json: bool, result: dict[str, Any], sentence: str) -> None:
    click.echo(json.dumps(result) if as_json else sentence)


def _label_names(info: ModelInfo) -> str:
    return ", ".join(str(label["name"]) for label in info.labels)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
