"""The ROC curve: sensitivity against false positive rate at every threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def roc_points(positive: ArrayLike, scores: ArrayLike) -> tuple[list[float], list[float]] | None:
    """False positive rate and sensitivity from (0, 0) to (1, 1), the threshold falling; only the corners of the curve.

    Cases of equal score move together. Points on a straight line between their neighbours are left out: the curve and
    the area under it are the same without them.

    Args:
        positive: whether a case has the class, (N,).
        scores: higher means likelier, (N,).

    Returns:
        None where positive or negative cases are missing.
    """
    truth, values = np.asarray(positive, dtype=bool), np.asarray(scores, dtype=float)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-values, kind="stable")
    last_of_tie = np.append(np.diff(values[order]) != 0, True)
    true = np.concatenate([[0], np.cumsum(truth[order])[last_of_tie]])
    false = np.concatenate([[0], np.cumsum(~truth[order])[last_of_tie]])
    steps_true, steps_false = np.diff(true), np.diff(false)
    turns = steps_true[:-1] * steps_false[1:] != steps_true[1:] * steps_false[:-1]  # whole numbers: no rounding
    corner = np.concatenate([[True], turns, [True]])
    return (false[corner] / negatives).tolist(), (true[corner] / positives).tolist()
