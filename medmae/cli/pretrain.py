"""``medmae pretrain``: an encoder from unlabelled images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs
from medmae.errors import BadInput


@options.command("pretrain", "An encoder from unlabelled images.")
@options.combine(
    options.dataset, options.images,
    click.option("--split", metavar="KEY", help="The list of the dataset file to use.  "
                                                "[default: training and unlabeled]"),
    options.method, options.preset, options.out("The run folder to make (or to continue, with --resume)."),
    options.steps, options.seed, options.device, options.precision, options.overrides, options.resume,
    options.as_json)
def command(dataset: Path | None, images: tuple[str, ...], split: str | None, method: str | None, preset: str | None,
            out: Path, steps: int | None, seed: int | None, device: str | None, precision: str | None,
            overrides: tuple[str, ...], resume: bool, as_json: bool) -> None:
    """Pretrain an encoder on unlabelled images by masking and reconstructing them.

    The labels of a dataset are not looked at. The finished encoder is OUT/model; give OUT to medmae finetune.

    \b
    Examples:
      medmae pretrain --dataset dataset.json --method gl-mae --preset tiny --out runs/encoder
      medmae pretrain --images scans/ more/*.nii.gz --method gl-mae --set modality=CT --out runs/ct
      medmae pretrain --resume --out runs/encoder
    """
    request = runs.Request(
        kind="pretrain", out=out, resume=resume,
        given=runs.given(method=method, preset=preset, steps=steps, seed=seed, device=device, precision=precision),
        inputs=runs.given(dataset=runs.absolute(dataset), split=split,
                          images=[str(Path(path).expanduser().absolute()) for path in images] or None),
        build_config=lambda given: _config(given, overrides), check_inputs=_check)
    run = runs.perform(request)
    click.echo(json.dumps(runs.describe(run), indent=1)) if as_json else runs.conclude(run, "pretrain")


def _config(given: Mapping[str, Any], overrides: tuple[str, ...]) -> Mapping[str, Any]:
    from medmae.config import from_json, to_json
    from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config

    if "method" not in given:
        raise BadInput("Which method? Give --method gl-mae (3-D) or --method vis-mae (2-D).")
    return to_json(resolve_pretrain_config(from_json(PretrainConfig, given, "pretraining configuration"), overrides))


def _check(inputs: Mapping[str, Any]) -> None:
    if ("dataset" in inputs) == ("images" in inputs):
        raise BadInput("What to train on? Give either --dataset FILE or --images PATH... .")
