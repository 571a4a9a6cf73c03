"""Calibration: definitions against loops, and temperatures that are found, bounded and explained."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_metrics_classification import drawn, scores_of

from medmae.metrics import fit_temperature, probabilities_of
from medmae.metrics.calibration import (
    TEMPERATURE_RANGE,
    brier_per_case,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    told_chances,
)


def slow_ece(chances, truth, bins):
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [n for n, p in enumerate(chances) if low <= p < high or (p == 1 and number == bins - 1)]
        if inside:
            gap = sum(chances[n] for n in inside) / len(inside) - sum(truth[n] for n in inside) / len(inside)
            total += abs(gap) * len(inside) / len(chances)
    return total


def test_the_calibration_error_is_that_of_loops_over_the_bins():
    generator = np.random.default_rng(0)
    chances = np.append(generator.random(200), [0.0, 1.0, 0.5])
    truth = generator.random(203) < chances
    for bins in (5, 16):  # bin borders that are exact in binary or not hit
        assert expected_calibration_error(reliability(chances, truth, bins)) == pytest.approx(
            slow_ece(chances.tolist(), truth.tolist(), bins))
    assert expected_calibration_error([]) is None


def test_which_probabilities_are_believed():
    chances, truth = told_chances(np.array([1, 0]), np.array([[.3, .7], [.4, .6]]))
    assert chances.tolist() == [.7, .6] and truth.tolist() == [True, False]
    chances, truth = told_chances(np.array([2, 0]), np.array([[.2, .2, .6], [.2, .5, .3]]))
    assert chances.tolist() == [.6, .5] and truth.tolist() == [True, False]
    chances, truth = told_chances(np.array([[1, 0], [0, 0]]), np.array([[.9, .2], [.4, .6]]))
    assert chances.tolist() == [.9, .2, .4, .6] and truth.tolist() == [True, False, False, False]


@pytest.mark.parametrize("several", [False, True])
def test_likelihood_is_that_of_the_probabilities(several):
    generator = np.random.default_rng(2)
    logits = generator.normal(0, 2, (30, 3))
    targets = generator.integers(0, 2, (30, 3)) if several else generator.integers(0, 3, 30)
    chances = probabilities_of(logits, 1.7, multi_label=several)
    if several:
        expected = -np.mean([math.log(p if t else 1 - p) for p, t in zip(chances.flat, targets.flat, strict=True)])
    else:
        expected = -np.mean([math.log(chances[n, t]) for n, t in enumerate(targets)])
    assert negative_log_likelihood(targets, logits, 1.7) == pytest.approx(expected)
    assert math.isfinite(negative_log_likelihood(targets, logits * 1e4))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(several, true_temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (6000, 3))
    chances = probabilities_of(logits, true_temperature, multi_label=several)
    targets = ((generator.random(chances.shape) < chances).astype(int) if several else
               np.array([generator.choice(3, p=row) for row in chances]))
    found = fit_temperature(targets, logits)
    assert found.temperature == pytest.approx(true_temperature, rel=0.06) and found.note == ""
    assert found.nll_after <= found.nll_before and found.ece_after < 0.03
    candidates = np.exp(np.linspace(*np.log(TEMPERATURE_RANGE), 400))
    best = min(negative_log_likelihood(targets, logits, one) + math.log(one) ** 2 / 2 / 6000 for one in candidates)
    reached = found.nll_after + math.log(found.temperature) ** 2 / 2 / 6000
    assert reached <= best + 1e-9


def test_degenerate_validation_cases_give_no_absurd_temperature():
    generator = np.random.default_rng(1)
    one_class = fit_temperature(np.ones(10, int), generator.normal(0, 1, (10, 2)))
    assert (one_class.temperature, one_class.cases) == (1.0, 0) and "same class" in one_class.note
    assert fit_temperature([1], [[0.0, 1.0]]).note == "there is only one validation case"
    nothing = fit_temperature(np.zeros((6, 2), int), generator.normal(0, 1, (6, 2)))
    assert nothing.temperature == 1.0 and "same class" in nothing.note
    targets = np.array([0, 1] * 6)
    right = fit_temperature(targets, 4.0 * np.eye(2)[targets])
    assert 0.5 < right.temperature <= 1 and "classified rightly" in right.note
    sure_and_wrong = fit_temperature(targets, 500.0 * np.eye(2)[1 - targets])
    assert sure_and_wrong.temperature == pytest.approx(TEMPERATURE_RANGE[1], rel=0.02)
    assert "end of the range" in sure_and_wrong.note
    assert fit_temperature([], np.empty((0, 2))).note and fit_temperature([], np.empty((0, 2))).temperature == 1


def test_scores_tell_what_the_temperature_changed():
    targets, probabilities = drawn(5, 3, False, 50)
    raw = probabilities ** 3 / (probabilities ** 3).sum(1, keepdims=True)
    scores = scores_of(targets, probabilities, uncalibrated=raw)
    chances, truth = told_chances(targets, raw)
    assert scores["calibration"]["uncalibrated"]["ece"] == pytest.approx(slow_ece(chances, truth, 10), abs=1e-6)
    assert scores["calibration"]["uncalibrated"]["brier"] == pytest.approx(brier_per_case(targets, raw).mean())
    assert scores["ece"] == pytest.approx(slow_ece(*told_chances(targets, probabilities), 10), abs=1e-6)
    assert scores_of(targets, probabilities)["calibration"]["uncalibrated"] is None
