import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_builders import AXIS_ORDERS, geometries, turned

from medmae.volumes import Geometry, reorient, resample, resample_labels, resampled_geometry


def blobs(shape, values, seed=0):
    """Smooth blobs, so that a label is larger than a voxel."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=(len(values), *shape))
    smooth = np.stack([ndimage.gaussian_filter(part, 2) for part in noise])
    return np.asarray(values)[smooth.argmax(axis=0)]


@settings(deadline=None)
@given(geometries(min_size=2), st.sampled_from(AXIS_ORDERS))
def test_labels_on_a_turned_grid_are_the_turned_labels(geometry, axes):
    labels = np.random.default_rng(0).integers(0, 5, geometry.shape).astype(np.uint8)
    turned_labels, turned_geometry = reorient(labels, geometry, axes)
    np.testing.assert_array_equal(resample_labels(labels, geometry, turned_geometry), turned_labels)


@settings(deadline=None)
@given(geometries(min_size=2), st.tuples(*[st.floats(0.4, 4)] * 3))
def test_only_labels_that_were_there_come_out_in_the_same_type(geometry, spacing):
    labels = np.random.default_rng(0).choice([0, 7, 300], geometry.shape).astype(np.int16)
    result = resample_labels(labels, geometry, resampled_geometry(geometry, spacing))
    assert result.dtype == np.int16
    assert set(np.unique(result)) <= {0, 7, 300}


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.15, 0.3)], ids=["straight", "oblique"])
@pytest.mark.parametrize("axes", AXIS_ORDERS)
def test_a_result_on_the_models_grid_comes_back_onto_the_exact_input_grid(axes, angles):
    source = turned(Geometry.of((9, 20, 26), (4, 1.1, 0.8), axes=axes, origin_mm=(50, -80, 300)), angles)
    labels = blobs(source.shape, [0, 1, 2]).astype(np.uint8)
    work_labels, work = reorient(labels, source, "RAS")
    model_grid = resampled_geometry(work, np.array(work.spacing_mm) * 0.6)
    back = resample_labels(resample_labels(work_labels, work, model_grid), model_grid, source)
    assert back.shape == labels.shape
    assert (back == labels).mean() > 0.97  # mirrored or shifted by a voxel it would be far less


@pytest.mark.parametrize("spacing", [(0.7, 0.9, 0.8), (1.7, 2.1, 1.6), (4, 4, 4), (0.5, 3, 1)])
@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3)])
def test_it_equals_sampling_every_label_on_the_whole_grid(spacing, angles):
    source = Geometry.of((14, 22, 20), (2, 1, 1.2), axes="LPS")
    labels = blobs(source.shape, [0, 1, 2, 9]).astype(np.uint8)
    target = turned(resampled_geometry(source, spacing), angles)
    shares = np.stack([resample((labels == value)[None].astype(np.float64), source, target, outside=0.0)[0]
                       for value in (0, 1, 2, 9)])
    second, first = np.sort(shares, axis=0)[-2:]
    expected = np.array([0, 1, 2, 9])[shares.argmax(axis=0)]
    clear = (first - second > 0.02) if angles == (0, 0, 0) or max(spacing) < 1.3 else first - second > 0.2
    result = resample_labels(labels, source, target)
    assert clear.mean() > 0.3
    np.testing.assert_array_equal(result[clear], expected[clear])


def test_upsampled_borders_are_smoother_than_with_the_nearest_voxel():
    source = Geometry.of((12, 12, 12), (4, 4, 4))
    fine = resampled_geometry(source, (1, 1, 1))
    centre = source.center_mm

    def ball(geometry):
        indices = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
        return (np.linalg.norm(geometry.to_world(indices) - centre, axis=-1) < 15).astype(np.uint8)

    truth, coarse = ball(fine), ball(source)
    smooth = resample_labels(coarse, source, fine)
    nearest = resample(coarse[None], source, fine, order=0)[0]
    assert (smooth != truth).sum() < 0.8 * (nearest != truth).sum()


def test_a_label_at_the_border_reaches_the_border_after_resampling():
    source = Geometry.of((4, 4, 4), (3, 3, 3))
    labels = np.zeros(source.shape, np.uint8)
    labels[:, :, 2:] = 5
    result = resample_labels(labels, source, resampled_geometry(source, (1, 1, 1)))
    assert (result[:, :, 6:] == 5).all()
    assert (result[:, :, :6] == 0).all()


def test_outside_the_field_of_view_there_is_background():
    source = Geometry.of((3, 3, 3), (1, 1, 1))
    labels = np.full(source.shape, 4, np.uint8)
    result = resample_labels(labels, source, source.cropped((-2, -2, -2), (7, 7, 7)))
    assert result.sum() == 4 * 27


def test_grids_that_do_not_meet_give_background():
    source = Geometry.of((3, 3, 3), (1, 1, 1))
    result = resample_labels(np.ones((3, 3, 3), np.uint8), source, source.cropped((90, 90, 90), (2, 2, 2)))
    assert not result.any()


def test_empty_labels_stay_empty():
    source = Geometry.of((3, 4, 5), (1, 1, 1))
    assert not resample_labels(np.zeros((3, 4, 5), np.uint8), source, resampled_geometry(source, (2, 2, 2))).any()


def test_fractions_are_not_labels():
    source = Geometry.of((2, 2, 2), (1, 1, 1))
    with pytest.raises(ValueError, match="integers"):
        resample_labels(np.zeros((2, 2, 2), np.float32), source, source)
