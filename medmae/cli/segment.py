"""``medmae segment``: label maps for images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medmae.cli import options, runs, tables
from medmae.cli.inference import apply_to_images, inference_config, raise_failures


@options.command("segment", "Label maps for images, on their exact grids.")
@options.combine(
    options.model, options.images, options.out("The folder for the results; must be new or empty."),
    click.option("--format", "file_format", type=click.Choice(options.FORMATS), help="Of the results; seg.nrrd keeps "
                 "names and colours and opens as a segmentation in 3D Slicer.  [default: nii.gz]"),
    options.frame, options.device, options.inference_precision, options.overrides, options.as_json)
def command(model: str, images: tuple[str, ...], out: Path, file_format: str | None, frame: int | None,
            device: str | None, precision: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Segment images; every result lies exactly on the grid of its image.

    Writes OUT/<image path without extension>.<format> and OUT/summary.csv. An image that cannot be used is reported
    and does not keep the others from being segmented (exit code 1).

    \b
    Examples:
      medmae segment --model runs/n8 --images scan.nii.gz --out results
      medmae segment --model liver --images study/ more/*.nrrd --format seg.nrrd --out results
    """
    given = runs.given(format=file_format, frame=frame, device=device, precision=precision)
    result = apply_to_images("segment", inference_config("segment", given, overrides), model, images, out)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif result["cases"]:
        tables.show(["image", "label", "voxels", "ml", "seconds"],
                    [[case["image"], name, size["voxels"], size["ml"], case["seconds"]]
                     for case in result["cases"] for name, size in case["labels"].items()])
        click.echo(f"Results: {out}")
    raise_failures(result, out)
