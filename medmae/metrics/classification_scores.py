"""Scores of a classification model: the object that ``medmae evaluate --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.metrics.calibration import brier_per_case, expected_calibration_error, reliability, told_chances
from medmae.metrics.class_figures import ScoredCases
from medmae.metrics.roc import roc_points

_OVERALL = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier")
_PER_CLASS = ("auc", "sensitivity", "specificity")


@dataclass(frozen=True)
class ClassificationCase:
    """One classified case.

    Attributes:
        image: what the case is called in the results.
        subject: whom it shows.
        target: class index, or a tuple of indices where several classes may apply.
        probabilities: one for each class.
        uncalibrated: the same without the model's temperature, where it has one.
    """

    image: str
    subject: str
    target: int | tuple[int, ...]
    probabilities: tuple[float, ...]
    uncalibrated: tuple[float, ...] | None = None


def classification_scores(cases: Iterable[ClassificationCase], classes: Sequence[str]) -> dict[str, Any]:
    """Every score of a classification, with 95 % bootstrap intervals over subjects; what does not exist is None.

    Overall: "auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", each with "..._interval"
    (definitions: `ScoredCases.figures`; of two classes "positive" names the second, which sensitivity and specificity
    are of), and "ece", the expected calibration error. "per_class": class to its counts and figures.
    "confusion": counts [truth][predicted], None where several classes may apply. "roc": class to the corners of its
    curve. "calibration": reliability bins, and what the figures were without the model's temperature. "cases".

    Where several classes may apply together, a class counts as predicted from a probability of 0.5, and a case is right
    when all its classes are.

    Raises:
        ValueError: a case has another number of probabilities than there are classes, or some cases have one class and
            others a list.
    """
    scored = list(cases)
    several = any(isinstance(case.target, tuple) for case in scored)
    if any(len(case.probabilities) != len(classes) for case in scored):
        raise ValueError(f"Every case needs {len(classes)} probabilities.")
    if several and not all(isinstance(case.target, tuple) for case in scored):
        raise ValueError("Some cases have one class and others a list of classes.")
    probabilities = np.array([case.probabilities for case in scored], dtype=float).reshape(-1, len(classes))
    if not np.isfinite(probabilities).all():
        raise ValueError("Some probabilities are not finite.")
    targets = _targets(scored, len(classes), several)
    return {"task": "classification", "multi_label": several, "classes": list(classes),
            "positive": classes[1] if len(classes) == 2 and not several else None,
            **_figures(targets, probabilities, [case.subject for case in scored], classes),
            "confusion": None if several else _confusion(targets, probabilities, len(classes)),
            "roc": _roc(targets, probabilities, classes), "calibration": _calibration(scored, targets, probabilities),
            "cases": [_case_to_json(case, classes) for case in scored]}


def predicted_classes(probabilities: Sequence[float] | NDArray, *, multi_label: bool) -> tuple[int, ...]:
    """The classes that probabilities (K,) speak for: the most probable one, or all from 0.5 where several may apply."""
    values = np.asarray(probabilities, dtype=float)
    return tuple(np.flatnonzero(values >= 0.5).tolist()) if multi_label else (int(values.argmax()),)


def targets_of(cases: Sequence[int | Sequence[int]], classes: int) -> NDArray[np.int64]:
    """Class indices as an array (N,), or lists of them as 0 and 1 of shape (N, `classes`)."""
    if not any(isinstance(case, Sequence) for case in cases):
        return np.array(cases, dtype=np.int64)
    targets = np.zeros((len(cases), classes), dtype=np.int64)
    for number, case in enumerate(cases):
        targets[number, list(case)] = 1  # type: ignore[arg-type]
    return targets


def _targets(cases: Sequence[ClassificationCase], classes: int, several: bool) -> NDArray[np.int64]:
    return targets_of([case.target for case in cases], classes) if several else np.array(
        [case.target for case in cases], dtype=np.int64)


def _figures(targets: NDArray, probabilities: NDArray, subjects: Sequence[str],
             classes: Sequence[str]) -> dict[str, Any]:
    if not len(targets):
        empty = {name: None for key in _OVERALL for name in (key, f"{key}_interval")}
        return {**empty, "auc_per_class": dict.fromkeys(classes), "per_class": {}, "ece": None}
    scored = ScoredCases(targets, probabilities)
    once = scored.figures(np.ones((1, len(targets))))
    intervals, class_intervals = scored.intervals(subjects)
    found: dict[str, Any] = {}
    for name in _OVERALL:
        found |= {name: _number(once.overall[name][0]), f"{name}_interval": _list(intervals[name])}
    areas = [_number(value) for value in once.per_class["auc"][0]]
    found["auc_per_class"] = dict(zip(classes, areas, strict=True))
    found["per_class"] = {
        name: {**_counts(scored.positive[:, one], scored.predicted[:, one]),
               **{key: value for figure in _PER_CLASS for key, value in (
                   (figure, _number(once.per_class[figure][0, one])),
                   (f"{figure}_interval", _list(class_intervals[figure][one])))}}
        for one, name in enumerate(classes)}
    found["ece"] = expected_calibration_error(reliability(*told_chances(targets, probabilities)))
    return found


def _counts(positive: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, int]:
    return {"true_positive": int((positive & predicted).sum()), "false_negative": int((positive & ~predicted).sum()),
            "false_positive": int((~positive & predicted).sum()), "true_negative": int((~positive & ~predicted).sum())}


def _confusion(targets: NDArray, probabilities: NDArray, classes: int) -> list[list[int]]:
    counts = np.zeros((classes, classes), dtype=np.int64)
    if len(targets):
        np.add.at(counts, (targets, probabilities.argmax(axis=1)), 1)
    return counts.tolist()


def _roc(targets: NDArray, probabilities: NDArray, classes: Sequence[str]) -> dict[str, Any]:
    """Of two classes the curve of the positive one, otherwise one a class; None where there is none."""
    curves: dict[str, Any] = {}
    for one, name in enumerate(classes):
        if targets.ndim == 1 and len(classes) == 2 and one == 0:
            continue
        positive = targets[:, one] if targets.ndim == 2 else targets == one
        points = roc_points(positive, probabilities[:, one]) if len(targets) else None
        curves[name] = points and {"false_positive_rate": points[0], "sensitivity": points[1]}
    return curves


def _calibration(cases: Sequence[ClassificationCase], targets: NDArray, probabilities: NDArray) -> dict[str, Any]:
    told = "class" if targets.ndim == 2 else "positive" if probabilities.shape[1] == 2 else "predicted"
    found: dict[str, Any] = {"of": told, "bins": [], "uncalibrated": None}
    if not cases:
        return found
    found["bins"] = reliability(*told_chances(targets, probabilities))
    if all(case.uncalibrated is not None for case in cases):
        raw = np.array([case.uncalibrated for case in cases], dtype=float)
        bins = reliability(*told_chances(targets, raw))
        found["uncalibrated"] = {"ece": expected_calibration_error(bins), "bins": bins,
                                 "brier": float(brier_per_case(targets, raw).mean())}
    return found


def _case_to_json(case: ClassificationCase, classes: Sequence[str]) -> dict[str, Any]:
    several = isinstance(case.target, tuple)
    chosen = [classes[one] for one in predicted_classes(case.probabilities, multi_label=several)]
    label: Any = [classes[one] for one in case.target] if isinstance(case.target, tuple) else classes[case.target]
    return {"image": case.image, "subject": case.subject, "label": label, "predicted": chosen if several else chosen[0],
            "probabilities": dict(zip(classes, map(float, case.probabilities), strict=True))}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
