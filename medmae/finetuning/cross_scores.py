"""Scores of a cross-validation: those of all cases together, each by the model that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmae.config import to_json
from medmae.finetuning.planning import Plan
from medmae.metrics import (
    Calibration,
    ClassificationCase,
    SegmentationCase,
    classification_scores,
    fit_temperature,
    segmentation_scores,
    targets_of,
)

LEAST_PROBABILITY = 1e-12  # what was rounded to 0 has a logarithm too


def pooled_scores(of_folds: Sequence[Mapping[str, Any]], plan: Plan, plans: Sequence[Plan]) -> dict[str, Any]:
    """The result object of all held-out cases, as `medmae evaluate --json` prints it, with what the folds add to it.

    "metric" names its main figure, whose 95 % interval is a bootstrap over the subjects; "folds" are one
    {"fold", "training_cases", "held_out_cases", "score"} each; every case tells its "fold". The AUC of a few held-out
    cases says little, and is None where they are of one class; that of all cases compares the probabilities of
    different models.
    """
    cases = [(number, case) for number, scores in enumerate(of_folds, 1) for case in scores["cases"]]
    if plan.dataset.task == "segmentation":
        metric, pooled = "mean_dice", segmentation_scores(SegmentationCase(**case) for _, case in cases)
    else:
        classes = list(plan.dataset.labels)
        metric, pooled = "auc", classification_scores([_classified(case, classes) for _, case in cases], classes)
    for (number, _), case in zip(cases, pooled["cases"], strict=True):
        case["fold"] = number
    folds = [{"fold": number, "training_cases": len(one.training), "held_out_cases": len(one.held_out),
              "score": scores[metric]} for number, (one, scores) in enumerate(zip(plans, of_folds, strict=True), 1)]
    return pooled | {"metric": metric, "folds": folds}


def calibration_of(scores: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The temperature of a classification that makes the held-out cases' probabilities tell the truth best.

    The logits of the models are taken back from their probabilities, which a temperature does not distinguish.
    """
    if plan.dataset.task != "classification":
        return {}
    if not plan.config.calibrate:
        return to_json(Calibration(1.0, 0, note="calibration was switched off"))
    classes = list(plan.dataset.labels)
    cases = [_classified(case, classes) for case in scores["cases"]]
    chances = np.array([case.probabilities for case in cases]).clip(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    logits = np.log(chances) - (np.log1p(-chances) if plan.multi_label else 0.0)
    found = to_json(fit_temperature(targets_of([case.target for case in cases], len(classes)), logits))
    return found | {"note": found["note"].replace("validation", "held-out"), "on": "held-out cases of the folds"}


def _classified(case: Mapping[str, Any], classes: Sequence[str]) -> ClassificationCase:
    label = case["label"]
    target = tuple(classes.index(one) for one in label) if isinstance(label, list) else classes.index(label)
    return ClassificationCase(case["image"], case["subject"], target,
                              tuple(case["probabilities"][name] for name in classes))
