"""``medmae segment``: label maps for images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs, tables
from medmae.cli.app import DONE, FAILED


@options.command("segment")
@options.combine(
    options.model, options.images, options.out("The folder for the results."),
    click.option("--format", "file_format", type=click.Choice(options.FORMATS), default="nii.gz", show_default=True,
                 help="seg.nrrd keeps names and colours and opens as a segmentation in 3D Slicer."),
    click.option("--frame", type=click.IntRange(min=0), metavar="N", help="The frame of 4-D images, counted from 0."),
    options.device, options.precision, options.overrides, options.as_json)
def command(model: str, images: tuple[str, ...], out: Path, file_format: str, frame: int | None, device: str | None,
            precision: str | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Segment images; every result lies exactly on the grid of its image.

    Writes OUT/<image path without extension>.<format> and OUT/summary.csv. An image that cannot be used is reported
    and does not keep the others from being segmented (exit code 1).

    \b
    Examples:
      medmae segment --model runs/n8 --images scan.nii.gz --out results
      medmae segment --model liver --images study/ more/*.nrrd --format seg.nrrd --out results
    """
