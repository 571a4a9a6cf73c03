"""``medmae model import`` and ``medmae model check``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmae.cli import options, tables
from medmae.cli.app import BAD_INPUT, DONE, say
from medmae.errors import BadInput

if TYPE_CHECKING:
    from medmae.models.importing import ImportReport

FORMATS = ("vis-mae",)  # those of medmae.models.importing, which needs torch


@click.command("import", cls=options.Command, short_help="Import a checkpoint of the published VIS-MAE.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, type=click.Choice(FORMATS),
              help="Which system saved the checkpoint.")
@options.out("The model folder to write.")
@click.option("--name", metavar="NAME", help="What the model is called.  [default: the name of --out]")
@click.option("--channels", type=click.IntRange(min=1), metavar="N",
              help="1 folds the input channels into one.  [default: as in the checkpoint, officially 3]")
@click.option("--modality", default="", metavar="CODE",
              help="What the images of its training were: CT, MR, PT, DX, US ...  [default: mixed or unknown]")
@click.option("--labels", metavar="NAME,NAME...",
              help="The names of the classes, in their order; in segmentation the background is the first.  "
                   "[default: class 0 (or background), class 1, ...]")
@click.option("--input-size", type=click.IntRange(min=1), metavar="N",
              help="Side of the square that the network looks at, in pixels.  [default: that of the training where the "
                   "checkpoint tells it, else 320 for segmentation and 224 for classification]")
@click.option("--intensity-range", type=float, nargs=2, metavar="LOW HIGH",
              help="The stored values that become 0 and 1.  [default: as the authors' scripts do it, see "
                   "docs/importing.md]")
@options.as_json
def import_command(checkpoint: Path, format_name: str, out: Path, name: str | None, channels: int | None, modality: str,
                   labels: str | None, input_size: int | None, intensity_range: tuple[float, float] | None,
                   as_json: bool) -> None:
    """Turn a checkpoint of the published VIS-MAE (pretraining, segmentation or classification) into a model.

    The network and its sizes are read off the checkpoint. Nothing in the file is executed.

    \b
    Examples:
      medmae model import --format vis-mae checkpoint-799.pth --out models/vis-mae
      medmae model import --format vis-mae checkpoint-best.pth --out models/organs --labels background,liver,spleen
      medmae model import --format vis-mae checkpoint-799.pth --out models/grey --channels 1 --modality CT
    """
    from medmae.datasets.labels import dicom_code
    from medmae.models.importing import ImportOptions, import_model

    names = tuple(part.strip() for part in labels.split(",")) if labels is not None else ()
    if labels is not None and not any(names):
        raise BadInput('--labels is empty. Give one name a class: --labels "background,liver", or leave it out.')
    report = import_model(format_name, checkpoint, out, ImportOptions(
        name=name, channels=channels, modality=dicom_code(modality), labels=names, input_side=input_size,
        intensity_range=intensity_range))
    click.echo(json.dumps(_as_dictionary(report))) if as_json else _show(report)


@click.command("check", cls=options.Command, short_help="Check that a model is whole and works.")
@click.argument("model")
@options.as_json
def check_command(model: str, as_json: bool) -> int:
    """Check that a model is whole and works: its hash, its architecture, its values, and one forward pass.

    \b
    Examples:
      medmae model check liver
      medmae model check models/vis-mae --json
    """
    from medmae.models.checking import check_model

    checks = check_model(model)
    in_order = all(check.ok for check in checks)
    if as_json:
        click.echo(json.dumps({"model": model, "ok": in_order, "checks": [dataclasses.asdict(c) for c in checks]}))
    else:
        tables.show(["check", "", "found"], [[check.name, "ok" if check.ok else "FAILED", check.found]
                                             for check in checks])
    if not in_order:
        say(f"Error: the model {model} is not in order: {checks[-1].found}")
    return DONE if in_order else BAD_INPUT


def _as_dictionary(report: ImportReport) -> dict[str, object]:
    info = report.info
    return {"name": info.name, "folder": str(report.folder), "task": info.task, "network": report.kind,
            "epoch": report.epoch, "architecture": info.architecture, "input_size": info.input_size,
            "channels": len(info.channels), "labels": [label["name"] for label in info.labels],
            "intensity": info.intensity, "licence": info.licence, "loaded": list(report.loaded),
            "folded": list(report.folded), "dropped": list(report.dropped), "unexpected": list(report.unexpected)}


def _show(report: ImportReport) -> None:
    info, arguments = report.info, report.info.architecture["arguments"]
    depths = "-".join(map(str, arguments["depths"]))
    heads = "-".join(map(str, arguments["heads"]))
    rows = [
        ("network", f"{report.kind} ({info.architecture['name']})"), ("epoch", report.epoch),
        ("sizes", f"width {arguments['width']}, depths {depths}, heads {heads}, window {arguments['window']}"),
        ("channels", arguments["channels"]), ("input size", " x ".join(map(str, info.input_size))),
        ("labels", ", ".join(label["name"] for label in info.labels)),
        ("loaded", f"{len(report.loaded)} tensors, all of the network"),
        ("folded", ", ".join(report.folded)),
        ("dropped", f"{len(report.dropped)} that are never used (positions, indices)" if report.dropped else ""),
        ("unexpected", ", ".join(report.unexpected)), ("licence", info.licence),
    ]
    tables.show(["", ""], [[name, value] for name, value in rows if value not in (None, "")])
    if report.unexpected:
        say(f"{len(report.unexpected)} tensors of the checkpoint are not part of this network and were left out. "
            "If you expected them to matter, the checkpoint was made by changed code.")
    click.echo(f"Imported {info.name} into {report.folder}")
