"""Scores of a classification model: the object that ``medmae evaluate --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.metrics.auc import auc, auc_per_class
from medmae.metrics.bootstrap import bootstrap_interval, mean_interval


@dataclass(frozen=True)
class ClassificationCase:
    """One classified case.

    Attributes:
        image: what the case is called in the results.
        subject: whom it shows.
        target: class index, or a tuple of indices where several classes may apply.
        probabilities: one for each class.
    """

    image: str
    subject: str
    target: int | tuple[int, ...]
    probabilities: tuple[float, ...]


def classification_scores(cases: Iterable[ClassificationCase], classes: Sequence[str]) -> dict[str, Any]:
    """AUC (macro one-vs-rest of several classes), accuracy and their 95 % bootstrap intervals over subjects.

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
    targets = _targets(scored, len(classes), several)
    correct = _correct(targets, probabilities)
    subjects = [case.subject for case in scored]
    area = auc(targets, probabilities) if scored else None
    area_interval = bootstrap_interval(subjects, lambda drawn: auc(targets[drawn], probabilities[drawn]))
    accuracy_interval = mean_interval(correct, subjects)
    per_class = auc_per_class(targets, probabilities) if scored else [None] * len(classes)
    return {"task": "classification", "auc": area, "auc_interval": _list(area_interval),
            "accuracy": float(correct.mean()) if scored else None, "accuracy_interval": _list(accuracy_interval),
            "auc_per_class": dict(zip(classes, per_class, strict=True)),
            "cases": [_case_to_json(case, classes) for case in scored]}


def _targets(cases: Sequence[ClassificationCase], classes: int, several: bool) -> NDArray[np.int64]:
    if not several:
        return np.array([case.target for case in cases], dtype=np.int64)
    targets = np.zeros((len(cases), classes), dtype=np.int64)
    for number, case in enumerate(cases):
        targets[number, list(case.target)] = 1  # type: ignore[arg-type]
    return targets


def _correct(targets: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    if targets.ndim == 2:
        return ((probabilities >= 0.5) == targets.astype(bool)).all(axis=1).astype(float)
    return (probabilities.argmax(axis=1) == targets).astype(float)


def _case_to_json(case: ClassificationCase, classes: Sequence[str]) -> dict[str, Any]:
    if isinstance(case.target, tuple):
        label: Any = [classes[one] for one in case.target]
        predicted: Any = [name for name, value in zip(classes, case.probabilities, strict=True) if value >= 0.5]
    else:
        label, predicted = classes[case.target], classes[int(np.argmax(case.probabilities))]
    return {"image": case.image, "subject": case.subject, "label": label, "predicted": predicted,
            "probabilities": dict(zip(classes, map(float, case.probabilities), strict=True))}


def _list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
