"""The objects that `medmae evaluate --json` prints."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medmae.metrics import (
    ClassificationCase,
    auc,
    classification_scores,
    foreground_labels,
    score_segmentation,
    segmentation_scores,
)

LABELS = {"background": 0, "a": 1, "b": 2, "never": 3}


def maps(reference_values, prediction_values):
    return tuple(np.array(values, np.uint8).reshape(1, 1, -1) for values in (reference_values, prediction_values))


def test_dice_is_the_mean_over_cases_that_have_the_label_and_then_over_labels():
    scores = segmentation_scores([
        score_segmentation("one", *maps([1, 1, 0, 0], [1, 1, 0, 0]), LABELS, (1, 1, 1)),
        score_segmentation("two", *maps([1, 1, 2, 2], [0, 0, 2, 0]), LABELS, (1, 1, 1)),
        score_segmentation("three", *maps([0, 0, 0, 0], [1, 1, 1, 0]), LABELS, (10, 10, 10)),
    ])
    assert scores["dice"] == {"a": 0.5, "b": pytest.approx(2 / 3), "never": None}
    assert scores["mean_dice"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert [case["dice"]["a"] for case in scores["cases"]] == [1.0, 0.0, None]
    assert [case["false_positive_ml"] for case in scores["cases"]] == [0.0, 0.0, 3.0]
    assert scores["cases"][2]["false_positive_voxels"] == {"a": 3, "b": 0, "never": 0}
    assert scores["hd95_mm"]["a"] == 0.0 and scores["hd95_mm"]["never"] is None
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_a_picture_without_millimetres_has_no_distance_and_no_volume():
    case = score_segmentation("x", *maps([0, 1], [1, 1]), LABELS, None)
    assert case.hd95_mm == {"a": None, "b": None, "never": None}
    assert case.false_positive_ml is None
    assert segmentation_scores([case])["hd95_mm"] == {"a": None, "b": None, "never": None}


def test_no_cases_and_no_foreground_give_nulls():
    scores = segmentation_scores([score_segmentation("x", *maps([0, 0], [0, 0]), LABELS, (1, 1, 1))])
    assert scores["mean_dice"] is None and scores["mean_dice_interval"] is None
    assert segmentation_scores([])["mean_dice"] is None
    assert classification_scores([], ["a", "b"])["auc"] is None


def test_the_background_is_found_by_name_then_by_value():
    assert foreground_labels({"Background": 5, "tissue": 0}) == {"tissue": 0}
    assert foreground_labels({"air": 0, "lung": 255}) == {"lung": 255}
    assert foreground_labels({"lung": 255}) == {"lung": 255}


def test_classification_of_two_classes():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 60)
    chance = np.clip(0.3 + 0.4 * targets + generator.normal(0, 0.2, 60), 0, 1)
    cases = [ClassificationCase(f"image{n}", f"s{n // 2}", int(target), (1 - p, p))
             for n, (target, p) in enumerate(zip(targets, chance, strict=True))]
    scores = classification_scores(cases, ["normal", "ill"])
    assert scores["auc"] == pytest.approx(auc(targets, chance))
    low, high = scores["auc_interval"]
    assert low < scores["auc"] < high <= 1
    assert scores["accuracy"] == pytest.approx(np.mean((chance > 0.5) == targets))
    assert scores["cases"][0] == {"image": "image0", "subject": "s0", "label": ["normal", "ill"][targets[0]],
                                  "predicted": ["normal", "ill"][int(chance[0] > 0.5)],
                                  "probabilities": {"normal": 1 - chance[0], "ill": chance[0]}}
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_classification_with_several_classes_at_once():
    cases = [ClassificationCase("1", "1", (0, 2), (0.9, 0.1, 0.8)), ClassificationCase("2", "2", (), (0.1, 0.2, 0.3)),
             ClassificationCase("3", "3", (1,), (0.4, 0.3, 0.1))]
    scores = classification_scores(cases, ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["auc"] == 1.0
    assert scores["cases"][0]["label"] == ["a", "c"] and scores["cases"][1]["predicted"] == []


def test_cases_that_do_not_fit_the_classes_are_an_error():
    with pytest.raises(ValueError, match="3 probabilities"):
        classification_scores([ClassificationCase("1", "1", 0, (0.5, 0.5))], ["a", "b", "c"])
    with pytest.raises(ValueError, match="others a list"):
        classification_scores([ClassificationCase("1", "1", 0, (0.5, 0.5)), ClassificationCase("2", "2", (0,), (1, 0))],
                              ["a", "b"])
