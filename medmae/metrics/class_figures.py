"""Accuracy, sensitivity, specificity, AUC and Brier score of weighted cases: one definition for scores and intervals.

A bootstrap draw is a weight for every case, so that all draws are computed at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.metrics.bootstrap import SAMPLES, bootstrap_weights, percentile_interval
from medmae.metrics.calibration import brier_per_case

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class ClassFigures:
    """Figures of W sets of weights over the same cases; NaN where one does not exist.

    overall: name to (W,); per_class: name to (W, K).
    """

    overall: dict[str, Floats]
    per_class: dict[str, Floats]


class ScoredCases:
    """Targets and predictions of N cases over K classes, ready for any weights.

    Args:
        targets: class indices (N,), or 0 and 1 of shape (N, K) where several classes may apply.
        probabilities: (N, K).
    """

    def __init__(self, targets: NDArray, probabilities: Floats) -> None:
        classes = probabilities.shape[1]
        self.multi_label = targets.ndim == 2
        self.binary = not self.multi_label and classes == 2
        if self.multi_label:
            self.positive, self.predicted = targets.astype(bool), probabilities >= 0.5
        else:
            self.positive = targets[:, None] == np.arange(classes)
            self.predicted = probabilities.argmax(axis=1)[:, None] == np.arange(classes)
        self.correct = (self.positive == self.predicted).all(axis=1)
        self._brier = brier_per_case(targets, probabilities)
        self._areas = [_WeightedAuc(self.positive[:, one], probabilities[:, one]) for one in range(classes)]

    def figures(self, weights: Floats) -> ClassFigures:
        """The figures of `weights` (W, N).

        Sensitivity and specificity overall are, of two classes, those of the second; otherwise the means over the
        classes that have them. Balanced accuracy is the mean sensitivity over classes, and where several classes may
        apply the mean of both over classes. A case of several classes is accurate when all its classes are right.
        """
        total = weights.sum(axis=1)
        sensitivity = _ratio(weights @ (self.positive & self.predicted), weights @ self.positive)
        specificity = _ratio(weights @ ~(self.positive | self.predicted), weights @ ~self.positive)
        area = np.stack([one(weights) for one in self._areas], axis=1)
        balanced = (sensitivity + specificity) / 2 if self.multi_label else sensitivity
        overall = {"auc": self._overall(area), "accuracy": _ratio(weights @ self.correct, total),
                   "balanced_accuracy": _mean(balanced), "sensitivity": self._overall(sensitivity),
                   "specificity": self._overall(specificity), "brier": _ratio(weights @ self._brier, total)}
        return ClassFigures(overall, {"auc": area, "sensitivity": sensitivity, "specificity": specificity})

    def intervals(self, subjects: Sequence[str], samples: int = SAMPLES) -> tuple[dict[str, Interval],
                                                                                  dict[str, list[Interval]]]:
        """95 % bootstrap intervals over subjects, overall and per class, of the same figures."""
        draws = [self.figures(weights) for weights in bootstrap_weights(subjects, samples=samples)]
        names, per_class_names = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier"), (
            "auc", "sensitivity", "specificity")
        classes = self.positive.shape[1]
        if not draws:
            return dict.fromkeys(names), {name: [None] * classes for name in per_class_names}
        overall = {name: percentile_interval(np.concatenate([one.overall[name] for one in draws]), samples=samples)
                   for name in names}
        tables = {name: np.concatenate([one.per_class[name] for one in draws]) for name in per_class_names}
        return overall, {name: [percentile_interval(table[:, one], samples=samples) for one in range(classes)]
                         for name, table in tables.items()}

    def _overall(self, table: Floats) -> Floats:
        return table[:, 1] if self.binary else _mean(table)


class _WeightedAuc:
    """`medmae.metrics.auc.binary_auc` of cases that count several times, for many sets of weights at once."""

    def __init__(self, positive: NDArray[np.bool_], scores: Floats) -> None:
        self._order = np.argsort(scores, kind="stable")
        _, self._ties = np.unique(scores[self._order], return_index=True)
        self._positive = positive[self._order]

    def __call__(self, weights: Floats) -> Floats:
        ordered = weights[:, self._order]
        positive = np.add.reduceat(ordered * self._positive, self._ties, axis=1)
        negative = np.add.reduceat(ordered * ~self._positive, self._ties, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        return _ratio((positive * (below + negative / 2)).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean(table: Floats) -> Floats:
    """Mean over classes (W, K) to (W,) of those that are not NaN."""
    known = np.isfinite(table)
    return _ratio(np.where(known, table, 0.0).sum(axis=1), known.sum(axis=1).astype(float))
