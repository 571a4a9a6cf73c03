"""Report of a label-efficiency curve: the chart, what pretraining adds and where it does not, every point."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from medmae.files import read_json
from medmae.reports.charts import label_curves
from medmae.reports.page import Page, number
from medmae.reports.run_facts import duration
from medmae.run_folder import RunFolder

ARM_NAMES = {"pretrained": "pretrained", "scratch": "from scratch", "unet": "plain U-Net", "dynunet": "DynUNet"}
METRICS = {"mean_dice": "mean Dice", "auc": "AUC"}


def build(run: RunFolder) -> Page:
    """The page of a curve run."""
    summary = read_json(run.path / "summary.json", "summary of the curve")
    with open(run.path / "results.csv", encoding="utf-8", newline="") as file:
        points = list(csv.DictReader(file))
    inputs = run.spec["inputs"]
    page = Page(f"Label efficiency: {run.path.resolve().name}", f"Scored on the list '{inputs.get('split') or 'test'}'")
    page.facts(_facts(summary, points))
    if summary:
        add_curve(page, summary)
    page.section("Points")
    page.table(["arm", "labels", "labelled cases", "seed", "score", "training time"],
               [[name_of(point["arm"]), point["labels"], point["training_cases"], point["seed"],
                 number(_float(point["score"])), _duration(point["train_seconds"])] for point in points],
               "Every point was trained with a fixed schedule on its labelled cases alone and scored once.",
               numeric=range(1, 6))
    return page


def add_curve(page: Page, summary: Sequence[Mapping[str, Any]]) -> None:
    """The chart, the means and the paired differences of a summary, and in words what they say."""
    metric = METRICS.get(summary[0]["metric"], summary[0]["metric"])
    arms = list(dict.fromkeys(arm for row in summary for arm in row["arms"]))
    page.section("Scores over labelled cases")
    ordered = sorted(summary, key=lambda row: row["training_cases"])
    lines = {name_of(arm): [(row["training_cases"], row["arms"][arm]["mean"],
                             [score for score in row["arms"][arm]["scores"].values() if score is not None])
                            for row in ordered if arm in row["arms"]] for arm in arms}
    ticks = {row["training_cases"]: labels_of(row) for row in ordered}
    sheet = label_curves(lines, metric, ticks)
    told = "; ".join(f"{name}: " + ", ".join(f"{number(mean)} of {labels}" for labels, mean, _ in line)
                     for name, line in lines.items())
    page.figure(sheet.png, f"{metric} over labelled cases. {told}.",
                "Large dots and lines: mean over the seeds. Small dots: every seed.", sheet.css_width)
    page.table(["labelled cases", *(name_of(arm) for arm in arms)],
               [[labels_of(row), *(_spread(row["arms"].get(arm)) for arm in arms)] for row in ordered],
               f"{metric}: mean ± standard deviation over the seeds.", numeric=range(1, len(arms) + 1))
    rows = [[labels_of(row), f"{name_of(one['arm'])} − {name_of(one['against'])}", signed(one["difference"]),
             _interval(one["interval"]), verdict(one)] for row in ordered for one in row["differences"]]
    if rows:
        page.section("Differences")
        page.paragraph(f"Paired by seed and case. Intervals are 95 % bootstraps over the {summary[0]['subjects']} "
                       "subjects scored, of the mean over the seeds. The spread of the seeds is not in them, so that a "
                       "difference counts as shown only where all seeds have its sign.")
        page.table(["labelled cases", "arms", f"difference of {metric}", "95 % interval", ""], rows, numeric=(2, 3))


def verdict(difference: Mapping[str, Any]) -> str:
    """In words what a paired difference says: it is shown where the interval and every seed agree about its sign."""
    interval = difference["interval"]
    if interval is None or difference["difference"] is None:
        return "not known"
    if interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    positive = interval[0] > 0
    if any((value > 0) != positive for value in difference["by_seed"].values()):
        return "no difference shown: the seeds disagree"
    better = f"{name_of(difference['arm' if positive else 'against'])} is better"
    return better if len(difference["by_seed"]) > 1 else f"{better} with the one seed"


def name_of(arm: str) -> str:
    """What people call an arm."""
    return ARM_NAMES.get(arm, arm)


def _facts(summary: Sequence[Mapping[str, Any]], points: Sequence[Mapping[str, str]]) -> dict[str, str | None]:
    seconds = [_float(point["train_seconds"]) for point in points]
    facts: dict[str, str | None] = {"points": str(len(points))}
    if summary:
        facts["cases scored"] = str(summary[0]["cases"])
        seeds = max(len(arm["scores"]) for row in summary for arm in row["arms"].values())
        facts["seed" if seeds == 1 else "seeds"] = str(seeds)
    if any(seconds):
        facts["training time of all points"] = duration(sum(value or 0.0 for value in seconds))
    return facts


def labels_of(row: Mapping[str, Any]) -> str:
    """A number of labelled cases as text; "all" and subsets with their number."""
    labels, cases = str(row["labels"]), str(row["training_cases"])
    return cases if labels == cases else f"{labels} ({cases})"


def _spread(arm: Mapping[str, Any] | None) -> str | None:
    if arm is None or arm["mean"] is None:
        return None
    return number(arm["mean"]) + (f" ± {number(arm['sd'])}" if arm["sd"] is not None else "")


def signed(value: float | None) -> str | None:
    """A difference with its sign."""
    return None if value is None else f"{value:+.3f}"


def _interval(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:+.3f} … {interval[1]:+.3f}"


def _float(text: str) -> float | None:
    return float(text) if text else None


def _duration(text: str) -> str | None:
    value = _float(text)
    return None if value is None else duration(value)
