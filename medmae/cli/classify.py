"""``medmae classify``: class probabilities for images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medmae.cli import options, runs, tables
from medmae.cli.inference import apply_to_images, inference_config, raise_failures


@options.command("classify", "Class probabilities for images.")
@options.combine(
    options.model, options.images, options.out("The folder for the results; must be new or empty."),
    options.frame, options.device, options.inference_precision, options.overrides, options.as_json)
def command(model: str, images: tuple[str, ...], out: Path, frame: int | None, device: str | None,
            precision: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Classify images: a probability for each class.

    Writes OUT/classes.csv and OUT/classes.json. An image that cannot be used is reported and does not keep the others
    from being classified (exit code 1).

    \b
    Example:
      medmae classify --model runs/tb --images xrays/ --out results
    """
    given = runs.given(frame=frame, device=device, precision=precision)
    result = apply_to_images("classify", inference_config("classify", given, overrides), model, images, out)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif result["cases"]:
        names = list(result["cases"][0]["probabilities"])
        tables.show(["image", "class", *names],
                    [[case["image"], case["label"], *(case["probabilities"][name] for name in names)]
                     for case in result["cases"]])
        click.echo(f"Results: {out}")
    raise_failures(result, out)
