import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_builders import AXIS_ORDERS, geometries, smooth_field, turned

from medmae.volumes import Geometry, reorient, resample, resampled_geometry

spacings = st.tuples(*[st.floats(0.3, 6)] * 3)


@given(geometries(), spacings)
def test_the_new_grid_has_exactly_the_spacing_and_keeps_centre_and_directions(geometry, spacing):
    new = resampled_geometry(geometry, spacing)
    np.testing.assert_allclose(new.spacing_mm, spacing)
    np.testing.assert_allclose(new.center_mm, geometry.center_mm, atol=1e-6)
    np.testing.assert_allclose(new.direction, geometry.direction, atol=1e-9)


@given(geometries(), spacings)
def test_the_new_field_of_view_is_within_half_a_voxel_on_each_side(geometry, spacing):
    new = resampled_geometry(geometry, spacing)
    extent = np.array(geometry.shape) * geometry.spacing_mm
    assert (np.abs(np.array(new.shape) * spacing - extent) <= np.maximum(spacing, 1e-9) + 1e-6).all()


@given(geometries(), spacings, st.sampled_from(AXIS_ORDERS))
def test_resampling_in_another_orientation_and_back_lands_on_the_exact_input_grid(geometry, spacing, axes):
    array = np.ones((1, *geometry.shape), np.float32)
    turned_array, turned_geometry = reorient(array, geometry, axes)
    work = resampled_geometry(turned_geometry, spacing)
    back = resample(resample(turned_array, turned_geometry, work), work, geometry, outside=1.0)
    assert back.shape == array.shape
    np.testing.assert_allclose(back, 1, atol=1e-5)


@given(geometries())
def test_the_same_grid_is_copied_bit_by_bit(geometry):
    array = np.random.default_rng(0).normal(size=(2, *geometry.shape)).astype(np.float32)
    np.testing.assert_array_equal(resample(array, geometry, geometry), array)


@given(geometries(), st.sampled_from(AXIS_ORDERS))
def test_a_turned_grid_gives_the_turned_voxels_bit_by_bit(geometry, axes):
    array = np.random.default_rng(0).normal(size=(1, *geometry.shape)).astype(np.float32)
    turned_array, turned_geometry = reorient(array, geometry, axes)
    np.testing.assert_array_equal(resample(array, geometry, turned_geometry), turned_array)


@given(geometries(min_size=3), st.sampled_from([0, 1]))
def test_a_crop_that_reaches_outside_is_the_crop_with_the_fill_value(geometry, order):
    array = np.random.default_rng(0).normal(size=(1, *geometry.shape)).astype(np.float32)
    target = geometry.cropped((1, -2, 1), (geometry.shape[0] - 1, geometry.shape[1] + 2, 2))
    result = resample(array, geometry, target, order, outside=-7)
    np.testing.assert_array_equal(result[0, :, 2:], array[0, 1:, :, 1:3])
    assert (result[0, :, :2] == -7).all()


def test_without_a_fill_value_the_minimum_stands_outside():
    geometry = Geometry.of((1, 1, 3), (1, 1, 1))
    array = np.array([5, -1000, 7], np.float32).reshape(1, 1, 1, 3)
    result = resample(array, geometry, geometry.cropped((0, 0, -1), (1, 1, 5)))
    assert result.ravel().tolist() == [-1000, 5, -1000, 7, -1000]


@settings(deadline=None)
@given(geometries(min_size=4), spacings, st.tuples(*[st.floats(-0.3, 0.3)] * 3), st.sampled_from(AXIS_ORDERS))
def test_a_linear_field_is_reproduced_on_any_finer_grid_inside(geometry, spacing, angles, axes):
    field = smooth_field(geometry)[None]
    inner = min(geometry.spacing_mm)
    target = Geometry.of((3, 3, 3), tuple(min(part, inner) * 0.3 for part in spacing), axes=axes)
    target = turned(target, angles)
    affine = target.affine.copy()
    affine[:3, 3] += geometry.center_mm - target.center_mm
    target = Geometry(target.shape, affine)
    # Slants below a hundredth of a voxel are not followed.
    tolerance = 0.02 * max(geometry.spacing_mm)
    np.testing.assert_allclose(resample(field, geometry, target)[0], smooth_field(target), atol=tolerance)


def test_the_oblique_path_agrees_with_simpleitk():
    import SimpleITK as sitk

    from medmae.volumes.simpleitk_images import image_of

    source = Geometry.of((12, 20, 24), (3, 1, 1.5), axes="LPS", origin_mm=(5, -6, 7))
    target = turned(Geometry.of((25, 28, 20), (0.9, 0.8, 1.1), axes="LIP", origin_mm=(5, -6, 40)), (0.1, -0.2, 0.15))
    array = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    reference = image_of(np.zeros(target.shape, np.float32), target)
    oracle = sitk.GetArrayFromImage(sitk.Resample(image_of(array, source), reference, sitk.Transform(),
                                                  sitk.sitkLinear, -9.0))
    result = resample(array[None], source, target, outside=-9.0)[0]
    both = (oracle != -9) & (result != -9)
    assert both.mean() > 0.2
    assert ((oracle == -9) == (result == -9)).mean() > 0.999
    np.testing.assert_allclose(result[both], oracle[both], atol=1e-3)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.3, 0.2, 0)])
def test_downsampling_does_not_alias(angles):
    geometry = Geometry.of((64, 64, 64), (1, 1, 1))
    stripes = np.zeros((1, *geometry.shape), np.float32)
    stripes[..., ::2] = 1
    target = turned(resampled_geometry(geometry, (2, 4, 4)), angles)
    affine = target.affine.copy()
    affine[:3, 3] += geometry.center_mm - target.center_mm
    small = resample(stripes, geometry, Geometry(target.shape, affine))[0, 8:-8, 5:-5, 5:-5]
    assert np.abs(small - 0.5).max() < 0.1  # sampling every fourth voxel would give 0 or 1


def test_the_mean_survives_downsampling():
    geometry = Geometry.of((32, 48, 40), (1, 1, 1))
    noise = np.random.default_rng(0).normal(10, 1, size=(1, *geometry.shape)).astype(np.float32)
    small = resample(noise, geometry, resampled_geometry(geometry, (2.5, 3, 2)))
    assert small.mean() == pytest.approx(10, abs=0.02)
    assert small.std() < 0.4


def test_order_0_gives_only_values_that_were_there_and_keeps_the_type():
    geometry = Geometry.of((5, 6, 7), (2, 1, 1))
    array = np.random.default_rng(0).choice([0, 3, 77], size=(1, 5, 6, 7)).astype(np.uint8)
    result = resample(array, geometry, resampled_geometry(geometry, (0.7, 0.7, 1.9)), order=0, outside=0)
    assert result.dtype == np.uint8
    assert set(np.unique(result)) <= {0, 3, 77}


def test_a_voxel_that_is_not_a_number_does_not_spread_over_the_image():
    geometry = Geometry.of((6, 6, 6), (1, 1, 1))
    array = np.zeros((1, 6, 6, 6), np.float32)
    array[0, 2, 2, 2] = np.nan
    result = resample(array, geometry, resampled_geometry(geometry, (0.5, 0.5, 0.5)), outside=0)
    assert 0 < np.isnan(result).sum() <= 64


def test_a_single_slice_can_be_resampled_in_its_plane_and_across():
    geometry = Geometry.of((1, 8, 8), (5, 1, 1), axes="LIP")
    array = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    target = resampled_geometry(geometry, (1, 1, 1))
    result = resample(array, geometry, target)
    assert target.shape == (5, 8, 8)
    np.testing.assert_allclose(result, np.repeat(array, 5, axis=1), rtol=1e-6)


def test_a_whole_body_needs_little_more_memory_than_its_result():
    geometry = Geometry.of((40, 256, 256), (2, 0.8, 0.8))
    array = np.zeros((1, *geometry.shape), np.float32)
    target = resampled_geometry(geometry, (1.5, 1.5, 1.5))
    tracemalloc.start()
    resample(array, geometry, target)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * array.nbytes


def test_the_result_never_shares_memory_with_the_input():
    geometry = Geometry.of((2, 3, 4), (1, 1, 1))
    array = np.zeros((1, 2, 3, 4), np.float32)
    resample(array, geometry, geometry)[...] = 1
    resample(array, geometry, geometry.cropped((0, 0, -1), (2, 3, 4)))[...] = 1
    assert not array.any()


def test_channels_are_resampled_like_single_images():
    geometry = Geometry.of((5, 6, 7), (2, 1, 1))
    array = np.random.default_rng(0).normal(size=(3, 5, 6, 7)).astype(np.float32)
    target = resampled_geometry(geometry, (0.7, 0.9, 1.9))
    for channel in range(3):
        np.testing.assert_array_equal(resample(array, geometry, target)[channel],
                                      resample(array[channel:channel + 1], geometry, target)[0])


def test_a_wrong_order_or_shape_is_a_programming_error():
    geometry = Geometry.of((2, 2, 2), (1, 1, 1))
    with pytest.raises(ValueError, match="order"):
        resample(np.zeros((1, 2, 2, 2)), geometry, geometry, order=3)
    with pytest.raises(ValueError, match="grid"):
        resample(np.zeros((2, 2, 2)), geometry, geometry)
