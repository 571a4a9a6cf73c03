"""``medmae pretrain``: an encoder from unlabelled images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs
from medmae.cli.app import say
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.run_folder import RunFolder


@options.command("pretrain", "An encoder from unlabelled images.")
@options.combine(
    options.dataset, click.option("--images", multiple=True, metavar="PATH...",
                                  help="Files, folders, globs, DICOM folders, or @list.txt with one of these a line; "
                                       "several may follow."),
    click.option("--split", metavar="KEY", help="The list of the dataset file to use.  "
                                                "[default: training and unlabeled]"),
    options.method, options.preset, options.out_here("The run folder to make (or to continue, with --resume)."),
    options.steps, options.seed, options.device, options.precision,
    click.option("--workers", type=click.IntRange(min=0), metavar="N",
                 help="Processes that prepare the images.  [default: one a core]"), options.overrides, options.resume,
    options.as_json)
@on_target
def command(dataset: Path | None, images: tuple[str, ...], split: str | None, method: str | None, preset: str | None,
            out: Path | None, steps: int | None, seed: int | None, device: str | None, precision: str | None,
            workers: int | None, overrides: tuple[str, ...], resume: bool, as_json: bool,
            elsewhere: Elsewhere | None) -> None:
    """Pretrain an encoder on unlabelled images by masking and reconstructing them.

    2-D images and volumes, of one modality or of several, may be mixed; what cannot be used is skipped and listed in
    OUT/corpus/skipped.csv. The labels of a dataset are not looked at. The finished encoder is OUT/model; give OUT to
    medmae finetune.

    \b
    Examples:
      medmae pretrain --dataset dataset.json --method gl-mae --preset tiny --out runs/encoder
      medmae pretrain --images scans/ more/*.nii.gz --method gl-mae --set modality=CT --out runs/ct
      medmae pretrain --images @list.txt xrays/ --method vis-mae --set balance=true --out runs/mixed
      medmae pretrain --resume --out runs/encoder
      medmae pretrain --dataset dataset.json --method gl-mae --preset base --target cluster --name ct-encoder
    """
    request = runs.Request(
        kind="pretrain", out=out, resume=resume,
        given=runs.given(method=method, preset=preset, steps=steps, seed=seed, device=device, precision=precision,
                         workers=workers),
        inputs=runs.given(dataset=runs.absolute(dataset), split=split,
                          images=[_absolute(path) for path in images] or None),
        build_config=lambda given: _config(given, overrides), check_inputs=_check,
        as_begun=lambda spec: _config(spec["config"], ()))
    if elsewhere is not None:
        elsewhere.perform(request, as_json)
        return
    run = runs.perform(request)
    _tell_skipped(run)
    click.echo(json.dumps(runs.describe(run), indent=1)) if as_json else runs.conclude(run, "pretrain")


def _absolute(pattern: str) -> str:
    from medmae.pretraining.sources import absolute_pattern

    return absolute_pattern(pattern)


def _tell_skipped(run: RunFolder) -> None:
    file = run.path / "corpus" / "preparation.json"
    counts = read_json(file, "account of the preparation") if file.is_file() else {}
    if counts.get("skipped"):
        say(f"{counts['skipped']} of {counts['sources']} images could not be used; {file.parent / 'skipped.csv'} says "
            "why.")


def _config(given: Mapping[str, Any], overrides: tuple[str, ...]) -> Mapping[str, Any]:
    from medmae.config import from_json, to_json
    from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config

    if "method" not in given:
        raise BadInput("Which method? Give --method gl-mae (3-D) or --method vis-mae (2-D).")
    return to_json(resolve_pretrain_config(from_json(PretrainConfig, given, "pretraining configuration"), overrides))


def _check(inputs: Mapping[str, Any]) -> None:
    if ("dataset" in inputs) == ("images" in inputs):
        raise BadInput("What to train on? Give either --dataset FILE or --images PATH... .")
