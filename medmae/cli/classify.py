"""``medmae classify``: class probabilities for images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs, tables
from medmae.cli.app import say
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.cli.inference import apply_to_images, cases_of, inference_config, inputs_elsewhere, raise_failures

MOST_COLUMNS = 6


@options.command("classify", "Class probabilities for images.")
@options.combine(
    options.model, options.images, options.channels,
    options.out_here("The folder for the results; must be new or empty."),
    options.resume_cases,
    click.option("--pooling", metavar="mean|max|topN%",
                 help="How a 2-D model makes one answer of the slices of a volume: the mean of their logits, of each "
                      "class the greatest, or the mean of the greatest N per cent.  [default: as trained]"),
    options.frame, options.batch, options.device, options.inference_precision, options.overrides, options.as_json)
@on_target
def command(model: str, images: tuple[str, ...], channels: tuple[tuple[str, ...], ...], out: Path | None, resume: bool,
            overrides: tuple[str, ...], as_json: bool, elsewhere: Elsewhere | None, **chosen: Any) -> None:
    """Classify images: a probability for each class.

    Writes OUT/classes.csv (a column for each class) and OUT/classes.json. Of volumes, 2-D models also name the slice
    that speaks most for the class: axis and index of the stored array. An image that cannot be used is reported and
    does not keep the others from being classified (exit code 1).

    \b
    Examples:
      medmae classify --model runs/tb --images xrays/ --out results
      medmae classify --model runs/bleeding --images head.nii.gz --pooling top10% --out results
      medmae classify --model runs/tb --images xrays/ --out results --resume
    """
    config = inference_config("classify", runs.given(**chosen), overrides)
    cases = cases_of(images, channels)
    if elsewhere is not None:
        elsewhere.apply("classify", config, inputs_elsewhere(model, cases), out, resume, as_json)
        return
    assert out is not None  # the command line asks for it
    result = apply_to_images("classify", config, model, cases, out, resume=resume)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif result["cases"]:
        _show(result)
        click.echo(f"Results: {out}")
        say(result["calibration_told"])
    raise_failures(result, out)


def _show(result: Mapping[str, Any]) -> None:
    """The classes of each image; of many classes only the highest probability, all are in the files."""
    names = list(result["classes"])
    few = len(names) <= MOST_COLUMNS
    has_slices = any(case["deciding_slice"] for case in result["cases"])
    rows = []
    for case in result["cases"]:
        values = [case["probabilities"][name] for name in names]
        row = [case["image"], case["label"], *(values if few else [max(values)])]
        deciding = case["deciding_slice"]
        rows.append(row + ([f"{deciding['axis']}={deciding['index']}" if deciding else None] if has_slices else []))
    tables.show(["image", "class", *(names if few else ["highest"]), *(["slice"] if has_slices else [])], rows)
