"""Dice and false positives against counting voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.metrics import dice_per_label, false_positive_ml, false_positive_voxels
from medmae.metrics.joint_counts import VOXELS_AT_ONCE, count_labels

LABELS = {"lung": 255, "heart": 1, "nodule": 7}
BEYOND = {**LABELS, "never": 300, "negative": -1}  # values that the stored type cannot hold
VALUES = st.sampled_from([0, 1, 7, 255, 3])


def slow_dice(reference, prediction, value):
    r, p = ({tuple(index) for index in np.argwhere(array == value)} for array in (reference, prediction))
    return None if not r else 2 * len(r & p) / (len(r) + len(p))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=60), st.sampled_from(["u1", "u2", "i2", "i8"]))
def test_dice_equals_counting_sets_of_voxels(pairs, kind):
    reference = np.array([pair[0] for pair in pairs], dtype=np.uint8).reshape(-1, 1, 1)
    prediction = np.array([pair[1] for pair in pairs], dtype=kind).reshape(-1, 1, 1)
    scores = dice_per_label(reference, prediction, BEYOND)
    assert list(scores) == list(BEYOND)
    for name, value in BEYOND.items():
        assert scores[name] == slow_dice(reference, prediction, value)


def test_a_missed_label_scores_zero_and_an_absent_one_is_null():
    reference = np.zeros((1, 4, 4), np.uint8)
    prediction = np.zeros((1, 4, 4), np.uint8)
    reference[0, 0] = 1
    prediction[0, 1] = 7
    assert dice_per_label(reference, prediction, LABELS) == {"lung": None, "heart": 0.0, "nodule": None}


def test_the_volume_of_an_absent_label_is_reported_as_false_positive():
    reference = np.zeros((2, 4, 4), np.uint8)
    prediction = reference.copy()
    reference[0, 0] = 1
    prediction[0, 1:3] = 1  # wrong place, but the reference has this label: it counts in Dice, not here
    prediction[1, 0] = 7
    assert false_positive_voxels(reference, prediction, LABELS) == {"lung": 0, "nodule": 4}
    millilitres = false_positive_ml(reference, prediction, LABELS, (5.0, 2.0, 10.0))
    assert millilitres == {"lung": 0.0, "nodule": pytest.approx(0.4)}


def test_volumes_larger_than_one_portion_are_counted_whole():
    reference = np.zeros(VOXELS_AT_ONCE + 10, np.uint8)
    reference[-5:] = 7
    prediction = reference.copy()
    prediction[-1] = 0
    counts = count_labels(reference.reshape(1, 1, -1), prediction.reshape(1, 1, -1), LABELS)
    assert (counts["nodule"].reference, counts["nodule"].prediction, counts["nodule"].both) == (5, 4, 4)


def test_arrays_that_are_not_contiguous_are_read_in_their_own_order():
    generator = np.random.default_rng(0)
    reference, prediction = generator.integers(0, 2, (2, 3, 4, 5))
    straight = dice_per_label(reference, prediction, {"heart": 1})
    assert dice_per_label(reference.T[::-1], np.ascontiguousarray(prediction.T[::-1]), {"heart": 1}) == straight


def test_different_shapes_are_an_error_even_with_equal_sizes():
    with pytest.raises(ValueError, match="shape"):
        dice_per_label(np.zeros((1, 2, 8), int), np.zeros((1, 4, 4), int), LABELS)
