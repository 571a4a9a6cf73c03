"""The report of a label-efficiency curve: what it says in words, and what it does with odd data."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from medmae.reports.curve_report import add_curve, verdict
from medmae.reports.page import Page


def arm(mean: float | None, *scores: float | None, sd: float | None = None) -> dict:
    return {"mean": mean, "sd": sd, "scores": {str(seed): score for seed, score in enumerate(scores)},
            "interval": None, "train_seconds": 1.0}


def row(labels: str, cases: int, arms: dict, differences: list) -> dict:
    return {"labels": labels, "training_cases": cases, "metric": "auc", "cases": 5, "subjects": 5, "arms": arms,
            "differences": differences}


@pytest.mark.parametrize(("interval", "said"), [
    ([0.01, 0.2], "pretrained is better"), ([-0.2, -0.01], "from scratch is better"),
    ([-0.01, 0.2], "no difference shown"), ([0.0, 0.2], "no difference shown"), (None, "not known")])
def test_the_words_follow_the_interval(interval: list[float] | None, said: str) -> None:
    by_seed = {"0": interval[0], "1": interval[0]} if interval else {}
    assert verdict({"arm": "pretrained", "against": "scratch", "difference": 0.1, "interval": interval,
                    "by_seed": by_seed}) == said


def test_a_difference_that_not_all_seeds_have_is_not_shown() -> None:
    found = {"arm": "pretrained", "against": "scratch", "difference": 0.1, "interval": [0.05, 0.2]}
    assert verdict(found | {"by_seed": {"0": 0.3, "1": -0.1}}) == "no difference shown: the seeds disagree"
    assert verdict(found | {"by_seed": {"0": 0.1}}) == "pretrained is better with the one seed"


def test_rows_stand_by_the_number_of_labels_and_missing_scores_are_dashes() -> None:
    page = Page("curve")
    difference = {"arm": "<b>mine</b>", "against": "unet", "difference": None, "interval": None, "by_seed": {}}
    add_curve(page, [row("all", 20, {"<b>mine</b>": arm(0.9, 0.9)}, []),
                     row("4", 4, {"<b>mine</b>": arm(None, None), "unet": arm(0.7, 0.6, 0.8, sd=0.1)}, [difference])])
    html = page.html("")
    assert html.index("<td>4</td>") < html.index("<td>all (20)</td>")
    assert "0.700 ± 0.100" in html and "&lt;b&gt;mine" in html and "<b>mine" not in html
    assert html.count("not known") == 1
