"""``medmae model export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medmae.cli import options

FORMATS = ("monai-bundle",)


@click.command("export", cls=options.Command, short_help="Export a finished model as a MONAI bundle.")
@click.argument("model")
@click.option("--format", "format_name", required=True, type=click.Choice(FORMATS), help="What to make of the model.")
@options.out("The folder to write.")
@options.as_json
def export_command(model: str, format_name: str, out: Path, as_json: bool) -> None:
    """Export a finished segmentation or classification model for another program.

    \b
    monai-bundle  runs with monai.bundle, where MedMAE is installed, to the labels of medmae segment

    \b
    Examples:
      medmae model export runs/liver --format monai-bundle --out bundles/liver
      cd bundles/liver && python -m monai.bundle run --config_file configs/inference.json --dataset_dir /data/new
    """
    from medmae.models.exporting import export_model

    report = export_model(format_name, model, out)
    if as_json:
        click.echo(json.dumps({"name": report.info.name, "task": report.info.task, "format": report.format_name,
                               "folder": str(report.folder), "files": list(report.files)}))
    else:
        click.echo(f"Exported {report.info.name} ({report.info.task}) as {report.format_name} into {report.folder}")
