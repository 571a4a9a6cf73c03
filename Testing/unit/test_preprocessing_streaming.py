"""Preparing plane by plane: the values of whole copies, for any axes, types, spacings and regions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_preprocessing import NONE, ORIENTATIONS, oblique

from medmae.datasets.preprocessing import Preprocessing
from medmae.inference.region import Region
from medmae.volumes import Geometry, Intensity, Volume, reorient, resample

CT = (Intensity("ct_window", -1000, 1000),)


def plain_preparation(preprocessing, image):
    """With whole copies: the missing values repaired, normalised, turned, resampled."""
    array = image.array
    if array.dtype.kind == "f":
        finite = np.isfinite(array)
        array = np.where(finite, array, array[finite].min() if finite.any() else 0).astype(array.dtype)
    channels = []
    for number, channel in enumerate(array):
        intensity = preprocessing.intensity[number % len(preprocessing.intensity)]
        values = channel.astype(np.float32)
        if intensity.kind != "none":
            low, high = limits(intensity, values)
            values = (values - np.float32(low)) / np.float32(high - low if high > low else 1)
            values = np.clip(values, 0, 1)
        channels.append((values - np.float32(intensity.mean)) / np.float32(intensity.std))
    oriented, grid = reorient(np.stack(channels), image.geometry, preprocessing.orientation)
    target = preprocessing._target(grid, image)
    return oriented if grid.is_close(target) else resample(oriented, grid, target)


def limits(intensity, values):
    if intensity.kind == "ct_window":
        return intensity.low, intensity.high
    if intensity.kind == "robust" and values.max() > values.min():
        values = values[values > values.min()]
    return np.percentile(values, (intensity.low, intensity.high)).astype(float)


@st.composite
def cases(draw):
    shape = tuple(draw(st.integers(1, 14)) for _ in range(3))
    spacing = tuple(draw(st.sampled_from([0.4, 0.8, 1.0, 1.5, 2.0, 3.7])) for _ in range(3))
    geometry = oblique(shape, spacing, draw(st.sampled_from(ORIENTATIONS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from([np.int16, np.uint8, np.float32, np.float64, np.int32]))
    channels = draw(st.integers(1, 2))
    array = (rng.normal(size=(channels, *shape)) * 700).clip(0 if kind == np.uint8 else -3000, None).astype(kind)
    if array.dtype.kind == "f" and draw(st.booleans()):
        array.reshape(-1)[::5] = rng.choice([np.nan, np.inf, -np.inf], size=len(array.reshape(-1)[::5]))
    intensity = draw(st.sampled_from([CT, NONE, (Intensity("robust", 0.5, 99.5),), (Intensity("robust", 0, 100),),
                                      (Intensity("xray", 1, 99, 0.2, 0.3),)]))
    target = draw(st.sampled_from([None, (1.5, 1.5, 1.5), (1.0, 2.0, 0.8), (5.0, 0.7, 3.0)]))
    return (Preprocessing(3, draw(st.sampled_from(["RAS", "LPS", "SAL"])), target, (4, 4, 4), intensity, channels),
            Volume(array, geometry, source="image.nii.gz"))


@settings(max_examples=100)
@given(cases())
def test_values_equal_those_of_whole_copies_bit_for_bit(case):
    preprocessing, image = case
    prepared = preprocessing.prepare(image)
    assert prepared.array.dtype == np.float32
    np.testing.assert_array_equal(prepared.array, plain_preparation(preprocessing, image))


@st.composite
def regions(draw):
    preprocessing, image = draw(cases())
    lower = [draw(st.integers(0, size - 1)) for size in image.geometry.shape]
    upper = [draw(st.integers(first + 1, size)) for first, size in zip(lower, image.geometry.shape, strict=True)]
    return preprocessing, image, Region(tuple(lower), tuple(upper))


@settings(max_examples=50)
@given(regions(), st.booleans())
def test_a_region_is_a_part_of_the_whole_prepared_image(case, context):
    preprocessing, image, region = case
    whole = preprocessing.prepare(image)
    part = preprocessing.prepare(image, region, context=context)
    start = np.rint(whole.geometry.to_indices(part.geometry.to_world((0, 0, 0)))).astype(int)
    k, j, i = (slice(first, first + size) for first, size in zip(start, part.geometry.shape, strict=True))
    np.testing.assert_array_equal(part.array, whole.array[:, k, j, i])
    # It covers the region as far as the whole does, and one window at least.
    ends = part.target.to_world([(0, 0, 0), np.subtract(part.target.shape, 1)])
    inside, everywhere = part.geometry.to_indices(ends), whole.geometry.to_indices(ends)
    for axis in range(3):
        low, high = sorted(inside[:, axis])
        last = part.geometry.shape[axis] - 1
        assert low > -1e-6 or everywhere[:, axis].min() < 1e-6
        assert high < last + 1e-6 or everywhere[:, axis].max() > whole.geometry.shape[axis] - 1 - 1e-6
        assert part.geometry.shape[axis] >= min(preprocessing.input_size[axis], whole.geometry.shape[axis])


@settings(max_examples=30)
@given(regions())
def test_results_are_written_into_the_region_of_the_stored_grid_and_nowhere_else(case):
    preprocessing, image, region = case
    prepared = preprocessing.prepare(image, region)
    base = np.random.default_rng(0).integers(0, 9, image.geometry.shape).astype(np.uint8)
    stored, view = prepared.blank(np.int16, base)
    assert view.shape == prepared.target.shape and stored.dtype == np.int16 and np.array_equal(stored, base)
    # Every voxel of the view gets its own R coordinate, found from the target's geometry.
    grid = np.stack(np.meshgrid(*map(np.arange, view.shape), indexing="ij"), -1)
    world = np.rint(prepared.target.to_world(grid)[..., 0] * 100).astype(np.int16)
    view[...] = world
    expected = base.astype(np.int16)
    grid = np.stack(np.meshgrid(*map(np.arange, expected.shape), indexing="ij"), -1)
    there = np.rint(image.geometry.to_world(grid)[..., 0] * 100).astype(np.int16)
    expected[region.slices] = there[region.slices]
    assert (np.abs(stored.astype(int) - expected) <= 1).all()
    stored[region.slices] = base[region.slices]
    assert np.array_equal(stored, base)


def test_intensities_of_a_region_are_those_of_the_whole_image():
    image = Volume(np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10), Geometry.of((10, 10, 10), (1, 1, 1)))
    preprocessing = Preprocessing(3, "RAS", None, (2, 2, 2), (Intensity("robust"),))
    part = preprocessing.prepare(image, Region((0, 0, 0), (2, 2, 2)), context=False)
    np.testing.assert_array_equal(part.array, preprocessing.prepare(image).array[:, :2, :2, :2])


def test_slices_of_two_dimensional_models_stay_whole():
    geometry = Geometry.of((12, 30, 40), (3, 1, 1), axes="LPS")
    image = Volume(np.random.default_rng(0).normal(size=(1, *geometry.shape)), geometry)
    preprocessing = Preprocessing(2, "LPS", None, (28, 28), NONE, context=1)
    whole = preprocessing.prepare(image)
    part = preprocessing.prepare(image, Region((5, 20, 30), (7, 22, 40)))
    assert part.array.shape == (1, 4, *whole.array.shape[2:])  # two slices and a neighbour on each side
    np.testing.assert_array_equal(part.array, whole.array[:, 4:8])
    assert part.target.shape == (2, 2, 10)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR"])
def test_no_second_copy_of_the_image_is_made(axes):
    geometry = Geometry.of((100, 120, 140), (1.0, 0.8, 0.8), axes=axes)
    array = np.random.default_rng(0).integers(-1000, 1000, (1, *geometry.shape)).astype(np.int16)
    image = Volume(array, geometry)
    preprocessing = Preprocessing(3, "RAS", (1.5, 1.5, 1.5), (32, 32, 32), CT)
    tracemalloc.start()
    prepared = preprocessing.prepare(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < prepared.array.nbytes + 20 * 120 * 140 * 4  # a few planes; a copy in float32 would be 6.7 MB more


@settings(max_examples=30)
@given(regions(), st.booleans())
def test_the_layout_is_known_before_anything_is_computed(case, context):
    preprocessing, image, region = case
    layout = preprocessing.layout(image, region, context=context)
    prepared = preprocessing.prepare(image, region, context=context)
    assert layout.array.shape == prepared.array.shape and set(layout.array.strides) == {0}
    assert layout.geometry.is_close(prepared.geometry) and layout.target.is_close(prepared.target)
