"""``medmae rank``: which cases to annotate next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from medmae.active_learning.strategies import strategy_names
from medmae.cli import options, runs
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.cli.inference import cases_of, inference_config, inputs_elsewhere, raise_failures, result_of
from medmae.cli.scores import show_ranking


@options.command("rank", "What to annotate next: cases, the most useful first.")
@options.in_group(
    "What", options.models, options.dataset,
    click.option("--split", metavar="KEY", default="unlabeled", show_default=True,
                 help="The list of the dataset file to rank."),
    options.images, options.channels, options.frame)
@options.in_group(
    "How",
    click.option("--strategy", type=click.Choice(strategy_names()),
                 help="entropy: where the model is unsure; random: the same chance for each.  "
                      "[default: entropy]"),
    options.seed,
    click.option("--cases", type=click.IntRange(min=1), metavar="N", help="Tell the N most useful cases only.  "
                 "[default: all]"))
@options.in_group(
    "Results", options.out("Also write ranking.json and ranking.csv into this folder; must be new or empty. With "
                           "--target: where fetched results go.", required=False), options.resume_cases,
    click.option("--labels", is_flag=True, default=None, help="Also write the predicted labels of each case into OUT, "
                 "to start from."),
    click.option("--format", "file_format", type=click.Choice(options.FORMATS), help="Of these labels.  "
                 "[default: nii.gz]"), options.as_json)
@options.in_group(
    "Quality, speed, memory (as medmae segment)", options.overlap, options.skip_empty, options.memory, options.batch,
    options.device, options.inference_precision)
@options.combine(options.overrides)
@on_target
def command(models: tuple[str, ...], dataset: Path | None, split: str, images: tuple[str, ...],
            channels: tuple[tuple[str, ...], ...], out: Path | None, resume: bool, file_format: str | None,
            overrides: tuple[str, ...], as_json: bool, elsewhere: Elsewhere | None, **chosen: Any) -> None:
    """Rank cases by how useful it would be to annotate them, the most useful first.

    Cases are those of a list of a dataset file, or images. The best case of each subject comes first, then the second
    best of each. An image that cannot be used is reported and does not keep the others from being ranked (exit code 1).
    What a score means, and what it does not: docs/annotating.md.

    \b
    Examples:
      medmae rank --model runs/n4 --dataset dataset.json --cases 5
      medmae rank --model runs/n4 --images archive/ --labels --format seg.nrrd --out next
      medmae rank --model fold1 fold2 --dataset dataset.json --out next --resume
      medmae rank --model runs/n4 --dataset dataset.json --strategy random --seed 1 --json
      medmae rank --model runs/n4 --dataset dataset.json --target gpu-box --wait --out next
    """
    cases = cases_of(images, channels)
    if (dataset is None) == (not cases):
        raise click.UsageError("Name the cases to rank, either by --dataset (with --split KEY) or by --images.")
    if elsewhere is None and out is None and (chosen["labels"] or resume):
        raise click.UsageError("--labels and --resume need a folder: name it with --out.")
    config = inference_config("rank", runs.given(format=file_format, **chosen), overrides)
    model = models[0] if len(models) == 1 else list(models)
    if elsewhere is not None:
        named = {} if dataset is None else {"dataset": runs.absolute(dataset), "split": split}
        elsewhere.apply("rank", config, inputs_elsewhere(model, cases, **named), out, resume, as_json)
        return
    inputs = {"model": model, **({"images": cases} if cases else {"dataset": str(dataset), "split": split}),
              "out": None if out is None else str(out), "resume": resume}
    if out is not None and not resume:
        runs.refuse_filled(out)
    with runs.clean_output(out):
        result = result_of("rank", config, inputs, out)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif result["cases"]:
        show_ranking(result)
        if out is not None:
            click.echo(f"Results: {out}")
    raise_failures(result, out)
