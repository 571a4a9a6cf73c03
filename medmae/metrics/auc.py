"""The area under the ROC curve, of two classes, of several, and of classes that may apply together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc(targets: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve; of several classes the macro one-vs-rest mean.

    Args:
        targets: class indices (N,), or for classes that may apply together 0 and 1 of shape (N, K).
        scores: higher means likelier: (N,) for class 1 of two, or (N, K).

    Returns:
        None where no class has both positive and negative cases; classes that have not are left out of the mean.

    Raises:
        ValueError: the shapes do not fit, or a score is not a number.
    """
    target_array, score_array = np.asarray(targets), np.asarray(scores, dtype=float)
    if score_array.ndim == 1:
        return binary_auc(target_array == 1, score_array)
    if score_array.shape[1] == 2 and target_array.ndim == 1:
        return binary_auc(target_array == 1, score_array[:, 1])
    values = [value for value in auc_per_class(target_array, score_array) if value is not None]
    return float(np.mean(values)) if values else None


def auc_per_class(targets: ArrayLike, scores: ArrayLike) -> list[float | None]:
    """One-vs-rest area of each class; `targets` (N,) or (N, K) and `scores` (N, K) as in ``auc``."""
    target_array, score_array = np.asarray(targets), np.asarray(scores, dtype=float)
    classes = score_array.shape[1]
    positive = target_array.astype(bool) if target_array.ndim == 2 else target_array[:, None] == np.arange(classes)
    if positive.shape != score_array.shape:
        raise ValueError(f"Targets of shape {target_array.shape} do not fit scores of shape {score_array.shape}.")
    return [binary_auc(positive[:, one], score_array[:, one]) for one in range(classes)]


def binary_auc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    """Probability that a positive case scores higher than a negative one, ties counting half (Mann-Whitney U).

    None where one of the two is missing.
    """
    if positive.shape != scores.shape:
        raise ValueError(f"Targets of shape {positive.shape} do not fit scores of shape {scores.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError("Some scores are not finite.")
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, tied, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2  # ranks from 1; equal scores share their mean
    rank_sum = mean_rank[tied.reshape(-1)][positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))
