"""HD95 against all pairs of surface voxels, and against MONAI."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.metrics import hd95_mm, hd95_per_label

SPACING = (3.0, 0.7, 1.1)


def slow_surface(mask):
    """Voxels with a face neighbour outside the mask or the image; an axis of one voxel has no neighbours."""
    points = []
    for index in np.argwhere(mask):
        for axis, step in itertools.product(range(3), (-1, 1)):
            if mask.shape[axis] == 1:
                continue
            neighbour = index.copy()
            neighbour[axis] += step
            if not 0 <= neighbour[axis] < mask.shape[axis] or not mask[tuple(neighbour)]:
                points.append(index)
                break
    return np.array(points) if points else np.argwhere(mask)


def slow_hd95(reference, prediction, spacing):
    if not reference.any() or not prediction.any():
        return None
    first, second = (slow_surface(mask) * np.array(spacing) for mask in (reference, prediction))
    distances = np.sqrt(((first[:, None] - second[None]) ** 2).sum(-1))
    return max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))


def blob(shape, centre, radius):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return ((grid - np.array(centre)) ** 2).sum(-1) <= radius**2


@settings(max_examples=60)
@given(st.data())
def test_hd95_equals_all_pairs_of_surface_voxels(data):
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(3))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    reference, prediction = generator.random((2, *shape)) < data.draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    expected = slow_hd95(reference, prediction, SPACING)
    found = hd95_mm(reference, prediction, SPACING)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 0, 0), (0, 3, -2)])
def test_hd95_equals_monai_on_balls_away_from_the_border(shift):
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    reference = blob((16, 18, 20), (8, 9, 10), 4)
    prediction = blob((16, 18, 20), np.array((8, 9, 10)) + shift, 5)
    theirs = monai.compute_hausdorff_distance(torch.from_numpy(prediction)[None, None].float(),
                                              torch.from_numpy(reference)[None, None].float(),
                                              include_background=True, percentile=95, spacing=SPACING)
    assert hd95_mm(reference, prediction, SPACING) == pytest.approx(float(theirs), abs=1e-4)


def test_a_shifted_plate_lies_exactly_its_shift_away():
    reference = np.zeros((12, 30, 30), bool)
    reference[2:4, 5:25, 5:25] = True
    assert hd95_mm(reference, np.roll(reference, 3, axis=0), (2.0, 1.0, 1.0)) == pytest.approx(6.0)


def test_in_a_single_slice_only_the_outline_is_surface():
    reference, prediction = np.zeros((2, 1, 40, 40), bool)
    reference[0, 5:35, 5:35] = True
    prediction[0, 5:35, 5:35] = True
    prediction[0, 15:25, 15:25] = False  # a hole far from the outline; were all voxels surface it would weigh less
    assert hd95_mm(reference, prediction, (1, 1, 1)) == pytest.approx(slow_hd95(reference, prediction, (1, 1, 1)))
    assert hd95_mm(reference, prediction, (1, 1, 1)) == 9


def test_it_is_null_where_a_side_is_empty_or_the_spacing_is_unknown():
    full, empty = np.ones((2, 3, 3), int), np.zeros((2, 3, 3), int)
    assert hd95_mm(full, empty, SPACING) is None
    assert hd95_mm(empty, full, SPACING) is None
    assert hd95_mm(full, full, None) is None
    assert hd95_per_label(full, full, {"a": 1, "b": 2}, SPACING) == {"a": 0.0, "b": None}
    assert hd95_per_label(full, full, {"a": 1}, None) == {"a": None}
