"""``medmae curve``: label efficiency."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from medmae.cli import options, runs, tables
from medmae.cli.elsewhere import Elsewhere, on_target
from medmae.errors import BadInput
from medmae.files import read_json

MAY_GROW = ("cases", "subsets", "seeds", "arms", "encoders", "of_arms")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*)=(.+)")
OF_FINETUNING = ("method", "preset", "steps", "device", "precision")


@options.command("curve", "What pretraining is worth: scores over labelled cases.")
@options.combine(
    options.dataset,
    click.option("--encoder", "encoders", multiple=True, metavar="[NAME=]MODEL",
                 help="Pretrained encoder: a model folder, a run folder or a name in the registry. Several, each with "
                      "a NAME that its arm gets, are compared; a single one may go without (arm: pretrained)."),
    click.option("--cases", multiple=True, metavar="N...",
                 help="Numbers of labelled cases, drawn from each seed; 'all' takes every one."),
    click.option("--subsets", "--subset", multiple=True, metavar="NAME...",
                 help="Named few-label subsets of the dataset file, instead of --cases."),
    click.option("--seeds", "--seed", multiple=True, metavar="N...", help="Seeds of every point.  [default: 0 1 2]"),
    click.option("--arms", multiple=True, metavar="ARM...",
                 help="The encoders' names (or pretrained), scratch (the same network without pretraining), unet (a "
                      "plain MONAI U-Net), dynunet (MONAI's DynUNet; both for segmentation only).  [default: every "
                      "encoder, and scratch]"),
    options.method, options.preset, options.steps,
    click.option("--split", metavar="KEY", help="The list to score on.  [default: test]"),
    options.out_here("The run folder to make (or to continue, with --resume)."),
    click.option("--jobs", type=click.IntRange(min=1), metavar="K",
                 help="Compute K points at once, each in a process with its share of the cores.  [default: 1]"),
    options.device, options.precision, options.overrides, options.resume, options.as_json)
@on_target
def command(dataset: Path | None, encoders: tuple[str, ...], cases: tuple[str, ...], subsets: tuple[str, ...],
            seeds: tuple[str, ...], arms: tuple[str, ...], method: str | None, preset: str | None, steps: int | None,
            split: str | None, out: Path | None, jobs: int | None, device: str | None, precision: str | None,
            overrides: tuple[str, ...], resume: bool, as_json: bool, elsewhere: Elsewhere | None) -> None:
    """Measure what pretraining is worth: finetune on more and more labelled cases, with the encoder and from scratch.

    Every point (cases x seed x arm) is a finetuning run of its own that sees its labelled cases and no others, scored
    once on the test list. OUT/results.csv has a row a point, cases.csv one a scored case, report.html the chart. A
    curve that was stopped or killed continues with --resume, also with more cases, seeds, encoders or arms. --set
    reaches the finetuning of the points, ARM.key=value that of one arm.

    \b
    Examples:
      medmae curve --dataset dataset.json --encoder runs/encoder --cases 2 4 8 --out runs/curve
      medmae curve --dataset dataset.json --encoder runs/encoder --cases 4 16 all --arms pretrained unet --out DIR
      medmae curve --dataset dataset.json --encoder gl-mae=runs/a --encoder mae=runs/b --cases 4 8 --arms gl-mae mae
          scratch dynunet --set dynunet.steps=800 --out DIR
      medmae curve --dataset dataset.json --encoder runs/encoder --subsets n4 n8 --seeds 0 1 2 3 4 --out runs/curve
      medmae curve --resume --out runs/curve
    """
    request = runs.Request(
        kind="curve", out=out, resume=resume,
        given=runs.given(cases=_case_numbers(cases), subsets=_parts(subsets), seeds=_numbers("--seeds", seeds),
                         arms=_parts(arms), method=method, preset=preset, steps=steps, device=device,
                         precision=precision, jobs=jobs),
        inputs=runs.given(dataset=runs.absolute(dataset), **_encoders(encoders), split=split),
        build_config=lambda given: _config(given, overrides), check_inputs=_check, as_begun=_as_begun,
        may_grow=MAY_GROW)
    if elsewhere is not None:
        elsewhere.perform(request, as_json)
        return
    run = runs.perform(request)
    outcome = runs.describe(run)
    summary = run.path / "summary.json"
    rows = read_json(summary, "summary of the curve") if summary.is_file() else None
    if as_json:
        click.echo(json.dumps({name: outcome[name] for name in ("run", "state", "step", "total")}
                              | {"results": str(run.path / "results.csv"), "summary": rows}, indent=1))
        return
    if outcome["state"] == "done" and rows is not None:
        _show(rows)
    runs.conclude(run, "curve")


def _config(given: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, Any]:
    from medmae.config import from_json, to_json
    from medmae.finetuning.config import FinetuneConfig, finetune_config
    from medmae.finetuning.curve import CurveConfig

    of_points = dict(given.get("finetune", {})) | {name: given[name] for name in OF_FINETUNING if name in given}
    for_all, of_arms = _by_arm(overrides)
    points = finetune_config(for_all, from_json(FinetuneConfig, of_points, "finetuning configuration"))
    own = {name: value for name, value in given.items() if name not in OF_FINETUNING}
    own["of_arms"] = {**own.get("of_arms", {}), **of_arms}
    if not own.get("cases") and not own.get("subsets"):
        raise BadInput("How many labelled cases? Give --cases N... or --subsets NAME... .")
    return to_json(from_json(CurveConfig, own | {"finetune": to_json(points)}, "curve configuration"))


def _as_begun(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a curve, in which arms without settings have none: they get none later."""
    from medmae.config import from_json
    from medmae.finetuning.curve import CurveConfig, arms_of

    config = _config(spec["config"], ())
    arms = arms_of(from_json(CurveConfig, config, "curve configuration"), spec["inputs"])
    return {**config, "of_arms": {arm: [] for arm in arms} | config["of_arms"]}


def _check(inputs: Mapping[str, Any]) -> None:
    if "dataset" not in inputs:
        raise BadInput("What to learn from? Give --dataset FILE (a dataset.json with labelled cases).")


def _parts(values: Sequence[str]) -> list[str] | None:
    """``2 4`` and ``2,4`` mean the same."""
    return [part for value in values for part in value.split(",") if part] or None


def _numbers(option: str, values: Sequence[str]) -> list[int] | None:
    try:
        return [int(part) for part in _parts(values) or ()] or None
    except ValueError:
        raise click.UsageError(f"{option} takes whole numbers, not '{' '.join(values)}'.") from None


def _case_numbers(values: Sequence[str]) -> list[int | str] | None:
    try:
        return [part if part == "all" else int(part) for part in _parts(values) or ()] or None
    except ValueError:
        raise click.UsageError(f"--cases takes whole numbers and the word all, not '{' '.join(values)}'.") from None


def _encoders(values: Sequence[str]) -> dict[str, Any]:
    """The inputs that name encoders: a single one without a name, or several with."""
    if not values:
        return {}
    if len(values) == 1 and not _NAMED.fullmatch(values[0]):
        return {"encoder": runs.model_reference(values[0])}
    named = [_NAMED.fullmatch(value) for value in values]
    if not all(named):
        raise click.UsageError("Several encoders need names: --encoder first=PATH --encoder second=PATH.")
    names = [match[1] for match in named if match]
    if len(set(names)) < len(names):
        raise click.UsageError(f"Two encoders have the same name ({', '.join(names)}).")
    return {"encoders": {match[1]: runs.model_reference(match[2]) for match in named if match}}


def _by_arm(overrides: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Settings for all points, and those for the points of an arm (``ARM.key=value``)."""
    for_all: list[str] = []
    of_arms: dict[str, list[str]] = {}
    for text in overrides:
        arm, dot, key = text.partition("=")[0].strip().partition(".")
        if dot and arm != "augmentation":
            of_arms.setdefault(arm, []).append(key + "=" + text.partition("=")[2])
        else:
            for_all.append(text)
    return for_all, of_arms


def _show(summary: Sequence[Mapping[str, Any]]) -> None:
    arms = list(dict.fromkeys(arm for row in summary for arm in row["arms"]))
    metric = {"mean_dice": "mean Dice", "auc": "AUC"}.get(summary[0]["metric"], summary[0]["metric"])
    tables.show(["labels", *(f"{arm}{what}" for arm in arms for what in ("", " sd"))],
                [[row["labels"], *(row["arms"].get(arm, {}).get(key) for arm in arms for key in ("mean", "sd"))]
                 for row in summary], title=f"{metric}, mean over seeds")
    differences = [[row["labels"], f"{one['arm']} - {one['against']}", one["difference"],
                    "{:+.3f} to {:+.3f}".format(*one["interval"]) if one["interval"] else None]
                   for row in summary for one in row["differences"]]
    if differences:
        tables.show(["labels", "paired difference", metric, "95 % interval"], differences)
