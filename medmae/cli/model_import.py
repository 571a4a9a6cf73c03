"""``medmae model import`` and ``medmae model check``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medmae.cli import options, tables
from medmae.cli.app import BAD_INPUT, DONE, say
from medmae.errors import BadInput

if TYPE_CHECKING:
    from medmae.models.importing import ImportReport

FORMATS = ("vis-mae", "gl-mae", "monai")  # those of medmae.models.importing, which needs torch
SIZES = ("patch", "width", "depth", "depths", "heads", "window", "decoder_width", "decoder_depth", "feature_size",
         "position_grid")


@click.command("import", cls=options.Command, short_help="Import weights of VIS-MAE, GL-MAE or MONAI.")
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
              help="Side of the square or cube that the network looks at, in pixels or voxels.  [default: that of the "
                   "training where the checkpoint tells it, else 320 for segmentation and 224 for classification]")
@click.option("--intensity-range", type=float, nargs=2, metavar="LOW HIGH",
              help="The stored values that become 0 and 1.  [default: as the authors' scripts do it, see "
                   "docs/importing.md]")
@click.option("--weights", type=click.Choice(["student", "teacher"]),
              help="gl-mae: whose weights.  [default: the student, where there are both]")
@click.option("--heads", type=click.IntRange(min=1), metavar="N",
              help="gl-mae, monai: heads of the attention, which no tensor shows.  [default: 12, 16, 16 for the widths "
                   "768, 1024, 1280, otherwise width / 64]")
@click.option("--decoder-heads", type=click.IntRange(min=1), metavar="N",
              help="gl-mae, monai: the same of the decoder.  [default: 16; monai: 12]")
@click.option("--grid", metavar="K,J,I",
              help="gl-mae, monai: tokens along the axes of the table of positions.  [default: the cube of their "
                   "number]")
@click.option("--positions", type=click.Choice(["table", "computed"]), default="table", show_default=True,
              help="gl-mae, monai: keep the table, resized for other grids as published, or compute sines and cosines.")
@click.option("--orientation", metavar="CODE",
              help="gl-mae, monai: where the last, middle and first axis of the network's input point.  [default: SAR, "
                   "the arrays (right, anterior, superior) of MONAI's loaders]")
@options.as_json
def import_command(checkpoint: Path, format_name: str, out: Path, labels: str | None, input_size: int | None,
                   modality: str, grid: str | None, as_json: bool, **wishes: Any) -> None:
    """Turn a checkpoint of another system into a model; nothing in the file is executed.

    \b
    vis-mae  pretraining, segmentation and classification
    gl-mae   pretraining: student, teacher or a bare state dict, with or without decoder
    monai    ViT, UNETR and MaskedAutoEncoderViT, three-dimensional

    The network and its sizes are read off the checkpoint. Every tensor of it is reported.

    \b
    Examples:
      medmae model import --format gl-mae checkpoint-1599.pth --out models/gl-mae
      medmae model import --format monai unetr.pth --out models/organs --modality CT --labels background,liver,spleen
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
        modality=dicom_code(modality), labels=names, input_side=input_size, grid=_grid(grid), **wishes))
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
            "folded": list(report.folded), "dropped": list(report.dropped), "unexpected": list(report.unexpected),
            "missing": list(report.missing), "notes": list(report.notes)}


def _grid(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    numbers = [int(part) if part.strip().isascii() and part.strip().isdecimal() else 0 for part in text.split(",")]
    if len(numbers) != 3 or min(numbers) < 1:
        raise BadInput(f"--grid {text} is not usable. Give the tokens along three axes, as in --grid 6,6,6.")
    return numbers[0], numbers[1], numbers[2]


def _show(report: ImportReport) -> None:
    info, arguments = report.info, report.info.architecture["arguments"]
    rows = [
        ("network", f"{report.kind} ({info.architecture['name']})"), ("epoch", report.epoch),
        ("sizes", ", ".join(f"{name.replace('_', ' ')} {_dashed(value)}" for name, value in arguments.items()
                            if name in SIZES)),
        ("channels", arguments["channels"]), ("input size", " x ".join(map(str, info.input_size))),
        ("labels", ", ".join(label["name"] for label in info.labels)),
        ("loaded", f"{len(report.loaded)} tensors" + (", all of the network" if not report.missing else "")),
        ("missing", f"{len(report.missing)} tensors of the model are fresh, first {report.missing[0]}"
         if report.missing else ""),
        ("folded", ", ".join(report.folded)),
        ("dropped", f"{len(report.dropped)} that are never used, as {report.dropped[0]}" if report.dropped else ""),
        ("unexpected", ", ".join(report.unexpected)), ("licence", info.licence),
    ]
    tables.show(["", ""], [[name, value] for name, value in rows if value not in (None, "")])
    if report.unexpected:
        say(f"{len(report.unexpected)} tensors of the checkpoint are not part of this network and were left out. "
            "If you expected them to matter, the checkpoint was made by changed code.")
    for note in report.notes:
        say(note)
    click.echo(f"Imported {info.name} into {report.folder}")


def _dashed(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)
