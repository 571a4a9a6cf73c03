"""AUC against counting pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.metrics import auc, auc_per_class

SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])


def slow_auc(positive, scores):
    wins = [1.0 if p > n else 0.5 if p == n else 0.0
            for p, is_p in zip(scores, positive, strict=True) if is_p
            for n, is_n in zip(scores, positive, strict=True) if not is_n]
    return sum(wins) / len(wins) if wins else None


@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=1, max_size=40))
def test_auc_equals_counting_pairs_with_ties_as_half(pairs):
    targets = [int(pair[0]) for pair in pairs]
    scores = [pair[1] for pair in pairs]
    expected = slow_auc(targets, scores)
    found = auc(targets, scores)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))
    if found is not None:
        assert auc(targets, [-score for score in scores]) == pytest.approx(1 - found)


@given(st.lists(st.tuples(st.integers(0, 3), SCORES, SCORES, SCORES, SCORES), min_size=2, max_size=25))
def test_several_classes_are_the_mean_of_one_against_the_rest(rows):
    targets = np.array([row[0] for row in rows])
    scores = np.array([row[1:] for row in rows])
    each = [slow_auc(targets == one, scores[:, one]) for one in range(4)]
    known = [value for value in each if value is not None]
    assert auc_per_class(targets, scores) == [None if value is None else pytest.approx(value) for value in each]
    assert auc(targets, scores) == (pytest.approx(np.mean(known)) if known else None)


def test_a_class_that_never_occurs_does_not_spoil_the_mean():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    assert auc([0, 1, 0], scores) == 1.0
    assert auc_per_class([0, 1, 0], scores) == [1.0, 1.0, None]


def test_classes_that_apply_together_are_scored_one_by_one():
    targets = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    scores = np.array([[0.9, 0.8], [0.2, 0.1], [0.8, 0.7], [0.1, 0.2]])
    assert auc_per_class(targets, scores) == [1.0, pytest.approx(slow_auc(targets[:, 1], scores[:, 1]))]
    assert auc(targets, scores) == pytest.approx((1 + slow_auc(targets[:, 1], scores[:, 1])) / 2)


def test_two_columns_use_the_second_as_the_score_of_class_one():
    targets = [0, 0, 1, 1, 1]
    column = np.array([0.1, 0.6, 0.6, 0.7, 0.2])
    assert auc(targets, np.stack([1 - column, column], 1)) == auc(targets, column)


def test_one_class_alone_has_no_area_and_a_score_that_is_no_number_is_an_error():
    assert auc([1, 1], [0.2, 0.3]) is None
    with pytest.raises(ValueError, match="finite"):
        auc([0, 1], [0.2, float("nan")])
    with pytest.raises(ValueError, match="fit"):
        auc([0, 1, 1], [0.2, 0.3])
