"""The scores of an evaluation and the order of a ranking, for a person."""

from __future__ import annotations

from typing import Any

import click

from medmae.cli import tables
from medmae.cli.app import say

WORST = 3


def show_scores(result: dict[str, Any]) -> None:
    """Print the result of a run of kind "evaluate"."""
    if result["task"] == "segmentation":
        _show_segmentation(result)
    else:
        _show_classification(result)


def show_ranking(result: dict[str, Any]) -> None:
    """Print the result of a run of kind "rank"."""
    cases = result["cases"]
    has_subjects = any(case["subject"] != case["case"] for case in cases)
    columns = {"rank": "rank", "case": "case", **({"subject": "subject"} if has_subjects else {}), "score": "score"}
    columns |= {name: heading for name, heading in (("foreground_voxels", "predicted voxels"), ("label", "class"))
                if any(name in case for case in cases)}
    tables.show(list(columns.values()), [[case.get(name) for name in columns] for case in cases])
    others = result["scored"] - len(cases)
    if others:
        click.echo(f"{others} more {'case comes' if others == 1 else 'cases come'} after these.")


def _show_segmentation(result: dict[str, Any]) -> None:
    rows = [[name, value, result["hd95_mm"].get(name)] for name, value in result["dice"].items()]
    tables.show(["label", "Dice", "HD95 (mm)"], rows)
    interval = _interval(result.get("mean_dice_interval"))
    click.echo(f"Mean Dice {tables.text(result['mean_dice'])}{interval} over {_count(result['cases'])}.")
    scored = [(min(known), case["image"]) for case in result["cases"]
              if (known := [value for value in case["dice"].values() if value is not None])]
    if len(scored) > WORST:
        worst = ", ".join(f"{image} ({value:.3f})" for value, image in sorted(scored)[:WORST])
        click.echo(f"Look first at: {worst}.")


def _show_classification(result: dict[str, Any]) -> None:
    classes = result["per_class"]
    if len(classes) > 2 or result["multi_label"]:
        tables.show(["class", "cases", "AUC", "sensitivity", "specificity"],
                    [[name, found["true_positive"] + found["false_negative"], found["auc"], found["sensitivity"],
                      found["specificity"]] for name, found in classes.items()])
    of_class = f" of {result['positive']}" if result["positive"] else ""
    tables.show(["score", "value", "95 % interval"],
                [[name, result[key], _bounds(result[f"{key}_interval"])] for key, name in {
                    "auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy",
                    "sensitivity": f"sensitivity{of_class}", "specificity": f"specificity{of_class}",
                    "brier": "Brier score"}.items()] + [["calibration error", result["ece"], None]])
    click.echo(f"AUC {tables.text(result['auc'])}{_interval(result['auc_interval'])}, accuracy "
               f"{tables.text(result['accuracy'])}{_interval(result.get('accuracy_interval'))} "
               f"over {_count(result['cases'])}.")
    say(result["calibration"]["told"])


def _bounds(interval: list[float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"


def _count(cases: list[Any]) -> str:
    return f"{len(cases)} case{'' if len(cases) == 1 else 's'}"
