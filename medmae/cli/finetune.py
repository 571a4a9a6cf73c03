"""``medmae finetune``: a segmentation or classification model from few labelled cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs, tables
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.run_folder import RunFolder


@options.command("finetune", "A segmentation or classification model from few cases.")
@options.combine(
    options.dataset, options.encoder, options.method, options.preset, options.subset, options.cases,
    options.out_here("The run folder to make (or to continue, with --resume)."),
    options.steps, options.seed, options.device, options.precision,
    click.option("--folds", type=click.IntRange(min=2), metavar="K",
                 help="Cross-validate: K models, each on all cases but a part, which they score. The model is their "
                      "ensemble."),
    click.option("--allow-partial", is_flag=True, default=None,
                 help="Accept an encoder of which less than 95 % fits the network."),
    options.overrides, options.resume, options.as_json)
@on_target
def command(dataset: Path | None, encoder: str | None, method: str | None, preset: str | None, subset: str | None,
            cases: int | None, out: Path | None, steps: int | None, seed: int | None, device: str | None,
            precision: str | None, folds: int | None, allow_partial: bool | None, overrides: tuple[str, ...],
            resume: bool, as_json: bool, elsewhere: Elsewhere | None) -> None:
    """Finetune an encoder on labelled cases; what is learned (segmentation or classes) is told by the dataset.

    Only the list "training" of the dataset is used, or the part of it that --subset or --cases names. The finished
    model is OUT/model. With --folds every case is scored once, by a model that has not seen it
    (OUT/cross_validation.json); the models of the folds, in OUT/folds, answer together as OUT/model.

    \b
    Examples:
      medmae finetune --dataset dataset.json --encoder runs/encoder --subset n8 --out runs/n8
      medmae finetune --dataset dataset.json --encoder none --method gl-mae --preset tiny --cases 4 --out runs/scratch
      medmae finetune --dataset dataset.json --encoder runs/encoder --folds 5 --out runs/five
      medmae finetune --resume --out runs/n8
      medmae finetune --dataset dataset.json --encoder ct-encoder --cases 8 --target gpu-box --wait --out runs/n8
    """
    request = runs.Request(
        kind="finetune", out=out, resume=resume,
        given=runs.given(method=method, preset=preset, steps=steps, seed=seed, device=device, precision=precision,
                         cases=cases, folds=folds, allow_partial=allow_partial),
        inputs=runs.given(dataset=runs.absolute(dataset), encoder=runs.model_reference(encoder), subset=subset),
        build_config=lambda given: _config(given, overrides), check_inputs=_check,
        as_begun=lambda spec: _config(spec["config"], ()))
    if elsewhere is not None:
        elsewhere.perform(request, as_json)
        return
    run = runs.perform(request)
    scores = _cross_validation(run)
    if as_json:
        told = {} if scores is None else {"cross_validation": {key: value for key, value in scores.items()
                                                               if key not in ("cases", "roc")}}
        click.echo(json.dumps(runs.describe(run) | told, indent=1))
        return
    runs.conclude(run, "finetune")
    if scores is not None:
        name, figure = {"mean_dice": "mean Dice"}.get(scores["metric"], "AUC"), scores[scores["metric"]]
        interval = scores[f"{scores['metric']}_interval"]
        click.echo(f"  cross-validation of {len(scores['cases'])} cases: {name} {tables.text(figure)}"
                   + (f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else ""))


def _cross_validation(run: RunFolder) -> dict[str, Any] | None:
    file = run.path / "cross_validation.json"
    return read_json(file, "scores of the cross-validation") if file.is_file() else None


def _config(given: Mapping[str, Any], overrides: tuple[str, ...]) -> Mapping[str, Any]:
    from medmae.config import from_json, to_json
    from medmae.finetuning.config import FinetuneConfig, finetune_config

    return to_json(finetune_config(overrides, from_json(FinetuneConfig, given, "finetuning configuration")))


def _check(inputs: Mapping[str, Any]) -> None:
    if "dataset" not in inputs:
        raise BadInput("What to learn from? Give --dataset FILE (a dataset.json with labelled training cases).")
    if "encoder" not in inputs:
        raise BadInput("Which encoder? Give --encoder MODEL, or --encoder none with --method and --preset "
                       "to start from scratch.")
