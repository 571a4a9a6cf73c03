"""Regions: the voxels whose centres lie in a box in RAS mm, on any grid, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_preprocessing import ORIENTATIONS, oblique

from medmae.errors import BadInput
from medmae.inference.region import Region, region_of_box
from medmae.volumes import Geometry


def centres(geometry):
    return geometry.to_world(np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1))


def in_box(geometry, box, tolerance=0.0):
    world = centres(geometry)
    return np.logical_and.reduce([(world[..., axis] >= box[2 * axis] - tolerance)
                                  & (world[..., axis] <= box[2 * axis + 1] + tolerance) for axis in range(3)])


@st.composite
def grids_and_boxes(draw):
    shape = tuple(draw(st.integers(1, 9)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.3, 6)) for _ in range(3))
    make = draw(st.sampled_from([oblique, Geometry.of]))
    geometry = make(shape, spacing, axes=draw(st.sampled_from(ORIENTATIONS)))
    corners = [geometry.to_world([draw(st.floats(-0.7, size - 0.3)) for size in shape]) for _ in range(2)]
    low, high = np.minimum(*corners), np.maximum(*corners)
    return geometry, [float(value) for pair in zip(low, high, strict=True) for value in pair]


@given(grids_and_boxes())
def test_exactly_the_voxels_with_their_centre_in_the_box_change(case):
    geometry, box = case
    sure, perhaps = in_box(geometry, box), in_box(geometry, box, 2e-4)
    try:
        region = region_of_box(box, geometry)
    except BadInput as error:
        assert not sure.any()
        assert "holds no voxel" in str(error)
        return
    base = np.full(geometry.shape, 7)
    labels = base.copy()
    labels[region.slices] = 1
    region.keep_outside(labels, geometry, base)
    assert (labels[sure] == 1).all()
    assert (labels[~perhaps] == 7).all()


@given(grids_and_boxes())
def test_the_box_of_voxels_is_as_small_as_it_can_be(case):
    geometry, box = case
    inside = in_box(geometry, box, 1e-4)
    if not inside.any():
        return
    region = region_of_box(box, geometry)
    for axis in range(3):
        used = np.flatnonzero(inside.any(tuple(other for other in range(3) if other != axis)))
        assert abs(region.lower[axis] - used[0]) <= 1 and abs(region.upper[axis] - 1 - used[-1]) <= 1


def test_outside_of_an_oblique_box_becomes_background_where_there_is_no_base():
    geometry = oblique((8, 9, 10), (1.0, 1.0, 1.0))
    low, high = geometry.center_mm - 3, geometry.center_mm + 3
    region = region_of_box([value for pair in zip(low, high, strict=True) for value in pair], geometry)
    assert region.box_mm is not None
    labels = np.zeros(geometry.shape, np.uint8)
    labels[region.slices] = 3
    region.keep_outside(labels, geometry)
    assert np.array_equal(labels == 3, in_box(geometry, region.box_mm, 1e-4))


def test_a_box_along_the_axes_needs_no_mask():
    geometry = Geometry.of((10, 10, 10), (2.0, 1.0, 1.0), axes="LPS")
    region = region_of_box((-6, -3, -9, 9, 4, 8), geometry)
    assert (region.lower, region.upper, region.box_mm) == ((2, 0, 3), (5, 10, 7), None)
    assert region.shape == (3, 10, 4)


@pytest.mark.parametrize("box, reason", [
    ((0, 1, 0, 1, 0), "six numbers"), ((float("nan"), 1, 0, 1, 0, 1), "six numbers"),
    ((5, 1, 0, 1, 0, 1), "lower border above"),
    ((100, 200, 0, 5, 0, 5), "holds no voxel of the image, which spans 0 9"),
])
def test_unusable_boxes_are_refused_with_the_reason(box, reason):
    with pytest.raises(BadInput, match=reason):
        region_of_box(box, Geometry.of((10, 10, 10), (1.0, 1.0, 1.0)))


def test_open_borders_reach_the_edge_of_the_image():
    geometry = Geometry.of((10, 11, 12), (1.0, 1.0, 1.0))
    infinity = float("inf")
    region = region_of_box((-infinity, infinity, -infinity, infinity, 4, infinity), geometry)
    assert (region.lower, region.upper) == ((4, 0, 0), (10, 11, 12))
    assert region_of_box((-infinity, infinity) * 3, geometry).covers(geometry)


def test_regions_intersect_or_miss_each_other():
    one, other = Region((0, 0, 0), (4, 4, 4)), Region((2, 1, 3), (9, 2, 9), (0, 1, 0, 1, 0, 1))
    assert one.intersection(other) == Region((2, 1, 3), (4, 2, 4), (0, 1, 0, 1, 0, 1))
    assert one.intersection(Region((4, 0, 0), (5, 1, 1))) is None
    with pytest.raises(ValueError, match="no voxel"):
        Region((1, 1, 1), (1, 2, 2))
