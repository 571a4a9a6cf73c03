"""``medmae evaluate``: how good a model is on labelled cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.cli.inference import inference_config, models_elsewhere
from medmae.cli.scores import show_scores
from medmae.errors import Stopped
from medmae.files import read_json
from medmae.run_folder import RunFolder


@options.command("evaluate", "Dice, HD95, AUC on labelled cases.")
@options.in_group(
    "What", options.models, options.dataset, options.split,
    options.out("Also write the predictions to this folder.", required=False), options.as_json)
@options.in_group(
    "Quality, speed, memory (segmentation; as medmae segment)", options.mirror, options.overlap, options.skip_empty,
    options.memory, options.batch, options.postprocess, options.device, options.inference_precision)
@options.combine(options.overrides)
@on_target
def command(models: tuple[str, ...], dataset: Path | None, split: str, out: Path | None, overrides: tuple[str, ...],
            as_json: bool, elsewhere: Elsewhere | None, **chosen: Any) -> None:
    """Score a model on the labelled cases of a dataset list.

    Segmentation: Dice and HD95 of every label, per case. Classification: AUC, accuracy, sensitivity, specificity with
    95 % intervals over subjects, and how far the probabilities can be believed.

    \b
    Examples:
      medmae evaluate --model runs/n8 --dataset dataset.json
      medmae evaluate --model runs/n8 --dataset dataset.json --split validation --json > scores.json
      medmae evaluate --model fold1 fold2 --mirror --dataset dataset.json
    """
    if dataset is None:
        raise click.UsageError("Missing option '--dataset'.")
    inputs = {"dataset": str(dataset), "split": split, "model": models[0] if len(models) == 1 else list(models),
              "out": None if out is None else str(out)}
    config = inference_config("evaluate", runs.given(**chosen), overrides)
    if elsewhere is not None:
        there = {"dataset": runs.absolute(dataset), "split": split,
                 "model": models_elsewhere(models[0] if len(models) == 1 else models)}
        elsewhere.submit("evaluate", config, there, out, as_json)
        return
    if out is not None:
        runs.refuse_filled(out)
    with runs.clean_output(out), runs.temporary_run("evaluate", config, inputs) as run:
        failure = _failure_after_result(run)
        if not (run.path / "result.json").is_file():
            raise Stopped("Stopped as asked; there are no scores.")
        result = read_json(run.path / "result.json", "result")
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        show_scores(result)
    if failure is not None:
        raise failure


def _failure_after_result(run: RunFolder) -> runs.Failed | None:
    """Where some cases failed, the others have scores: show these first."""
    try:
        runs.execute(run, "evaluate")
    except runs.Failed as failure:
        if not (run.path / "result.json").is_file():
            raise
        return runs.Failed(str(run.state().get("reason") or failure.message))
    return None
