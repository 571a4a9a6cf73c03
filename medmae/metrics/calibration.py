"""How far probabilities can be believed: reliability, expected calibration error, Brier score, and the temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS = 10
TEMPERATURE_RANGE = (0.1, 10.0)
FEW_CASES = 20
_SEARCH_POINTS = 81


def probabilities_of(logits: ArrayLike, temperature: float = 1.0, *, multi_label: bool = False) -> NDArray[np.float64]:
    """Probabilities of logits (..., K): softmax over the classes, or a sigmoid of each where several may apply."""
    scaled = np.asarray(logits, dtype=float) / temperature
    return np.exp(_log_sigmoid(scaled) if multi_label else _log_softmax(scaled))


def told_chances(targets: NDArray, probabilities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The probabilities whose reliability counts, and whether what they announce came true; both flat.

    Of two classes that of the second (positive) class; of more that of the predicted class; where several classes may
    apply (`targets` (N, K)) that of every class of every case.
    """
    if targets.ndim == 2:
        return probabilities.ravel(), targets.astype(bool).ravel()
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], targets == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets


def reliability(chances: ArrayLike, came_true: ArrayLike, bins: int = BINS) -> list[dict[str, Any]]:
    """Bins of equal width over [0, 1] that hold something: what was announced and how often it came true.

    Each is {"low", "high", "count", "probability", "frequency"}; a bin holds low <= p < high, the last one also 1.
    """
    announced, truth = np.asarray(chances, dtype=float), np.asarray(came_true, dtype=float)
    place = np.minimum((announced * bins).astype(int), bins - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append({"low": float(number / bins), "high": float((number + 1) / bins), "count": int(inside.sum()),
                      "probability": float(announced[inside].mean()), "frequency": float(truth[inside].mean())})
    return found


def expected_calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Mean over cases of |announced probability - frequency| of their bin (`reliability`); None without cases."""
    total = sum(one["count"] for one in bins)
    return sum(one["count"] * abs(one["probability"] - one["frequency"]) for one in bins) / total if total else None


def brier_per_case(targets: NDArray, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brier score of each case (N,).

    Of two classes the squared error of the positive class' probability; of more the sum over classes; where several
    may apply the mean over classes.
    """
    if targets.ndim == 2:
        return np.square(probabilities - targets).mean(axis=1)
    squared = np.square(probabilities - np.eye(probabilities.shape[1])[targets])
    return squared[:, 1] if probabilities.shape[1] == 2 else squared.sum(axis=1)


def negative_log_likelihood(targets: NDArray, logits: NDArray[np.float64], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of logits (N, K): cross-entropy, or binary cross-entropy over all classes.

    Args:
        targets: class indices (N,), or 0 and 1 of shape (N, K) where several classes may apply.
        logits: of the network, before any temperature.
        temperature: what they are divided by.
    """
    scaled = logits / temperature
    if targets.ndim == 2:
        return float(-_log_sigmoid(np.where(targets.astype(bool), scaled, -scaled)).mean())
    return float(-_log_softmax(scaled)[np.arange(len(targets)), targets].mean())


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it changed on the cases it was fitted on; JSON through `medmae.config`.

    temperature: logits are divided by it; 1 leaves them alone. cases: how many it was fitted on, 0 for none.
    nll_before, nll_after, ece_before, ece_after: mean negative log-likelihood and expected calibration error on these
    cases without and with it. note: what to know about it, empty where there is nothing.
    """

    temperature: float
    cases: int
    nll_before: float | None = None
    nll_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    note: str = ""


def fit_temperature(targets: ArrayLike, logits: ArrayLike) -> Calibration:
    """The temperature under which logits (N, K) tell the truth about `targets` best.

    It minimises the negative log-likelihood plus half of log(temperature) squared, over all cases: a weight of about
    one case that keeps it near 1 while cases are few, and finite where all of them are right. Cases that are all of one
    class say nothing about the others: nothing is fitted then.

    Args:
        targets: class indices (N,), or 0 and 1 of shape (N, K) where several classes may apply.
        logits: pooled over slices, before any temperature.
    """
    truth, raw = np.asarray(targets, dtype=np.int64), np.asarray(logits, dtype=float)
    count = len(truth)
    if not count:
        return Calibration(1.0, 0, note="there were no validation cases")
    multi_label = truth.ndim == 2
    if not (truth != truth[0]).any():
        return Calibration(1.0, 0, note="all validation cases are of the same class" + ("es" if multi_label else "")
                           if count > 1 else "there is only one validation case")
    temperature, note = _minimum(truth, raw), ""
    predicted = raw > 0 if multi_label else raw.argmax(axis=1)
    if bool((predicted == truth).all()):
        note = f"all {count} validation cases are classified rightly, which says little about how sure to be"
    elif not TEMPERATURE_RANGE[0] * 1.01 < temperature < TEMPERATURE_RANGE[1] * 0.99:
        note = f"it lies at the end of the range allowed ({TEMPERATURE_RANGE[0]:g} to {TEMPERATURE_RANGE[1]:g})"
    elif count < FEW_CASES:
        note = f"fitted on {count} cases only"
    errors = [expected_calibration_error(reliability(*told_chances(
        truth, probabilities_of(raw, one, multi_label=multi_label)))) for one in (1.0, temperature)]
    return Calibration(temperature, count, negative_log_likelihood(truth, raw),
                       negative_log_likelihood(truth, raw, temperature), errors[0], errors[1], note)


def _minimum(truth: NDArray, logits: NDArray[np.float64]) -> float:
    """A grid finds the valley, Brent's method its bottom; the cost need not be convex in the logarithm."""
    from scipy.optimize import minimize_scalar  # here, so that importing metrics stays quick

    count = len(truth)

    def cost(log_temperature: float) -> float:
        return (count * negative_log_likelihood(truth, logits, float(np.exp(log_temperature)))
                + 0.5 * log_temperature ** 2)

    low, high = np.log(TEMPERATURE_RANGE)
    grid = np.linspace(low, high, _SEARCH_POINTS)
    best = int(np.argmin([cost(one) for one in grid]))
    bounds = grid[max(0, best - 1)], grid[min(len(grid) - 1, best + 1)]
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x if found.fun <= cost(grid[best]) else grid[best]))


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _log_sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.logaddexp(0.0, -values)
