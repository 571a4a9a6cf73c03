"""Preprocessing: what the network sees, and the way back to the stored grid."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.config import from_json, to_json
from medmae.datasets.preprocessing import (
    Preprocessing,
    check_same_grid,
    fitted_geometry,
    indices_of_values,
    pad_centred,
)
from medmae.errors import BadInput
from medmae.volumes import Geometry, Intensity, Volume, read_image, read_label

ORIENTATIONS = ["".join(letters) for axes in itertools.permutations(("RL", "AP", "SI"))
                for letters in itertools.product(*axes)]
NONE = (Intensity("none"),)
NATIVE = Preprocessing(3, "RAS", None, (8, 8, 8), NONE)
ROTATION = np.array([[0.98, -0.15, 0.12], [0.16, 0.98, -0.1], [-0.1, 0.12, 0.99]])


def oblique(shape, spacing, axes="RAS"):
    plain = Geometry.of(shape, spacing, axes=axes, origin_mm=(12.5, -40.0, 7.0))
    rotation = np.linalg.qr(ROTATION)[0] * np.sign(np.diag(np.linalg.qr(ROTATION)[1]))
    affine = plain.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    return Geometry(shape, affine)


def volume(geometry, channels=1, seed=0, **kwargs):
    array = np.random.default_rng(seed).normal(size=(channels, *geometry.shape)).astype(np.float32)
    return Volume(array, geometry, source="image.nii.gz", **kwargs)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_any_orientation_is_turned_to_the_model_and_back_exactly(axes):
    image = volume(oblique((5, 4, 6), (3.0, 0.8, 1.1), axes))
    prepared = NATIVE.prepare(image)
    assert prepared.geometry.axes == "RAS"
    assert np.array_equal(prepared.to_source_axes(prepared.array), image.array)
    for index in [(0, 0, 0), (4, 0, 5), (2, 3, 1)]:
        world = image.geometry.to_world(index)
        there = tuple(np.rint(prepared.geometry.to_indices(world)).astype(int))
        np.testing.assert_allclose(prepared.geometry.to_world(there), world, atol=1e-6)
        assert prepared.array[(0, *there)] == image.array[(0, *index)]


def test_resampling_reaches_the_spacing_of_the_model_and_keeps_positions():
    geometry = oblique((12, 40, 30), (5.0, 1.0, 1.0), "LPS")
    k, j, i = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    world = geometry.to_world(np.stack([k, j, i], -1))
    image = Volume(world[..., 0][None].astype(np.float32), geometry)  # every voxel holds its R coordinate
    prepared = Preprocessing(3, "RAS", (2.0, 2.0, 2.0), (8, 8, 8), NONE).prepare(image)
    np.testing.assert_allclose(prepared.geometry.spacing_mm, 2.0)
    inner = tuple(slice(3, -3) for _ in range(3))
    grid = np.stack(np.meshgrid(*map(np.arange, prepared.geometry.shape), indexing="ij"), -1)
    np.testing.assert_allclose(prepared.array[0][inner], prepared.geometry.to_world(grid)[..., 0][inner], atol=0.05)


def test_equal_spacing_is_not_resampled():
    image = volume(Geometry.of((4, 5, 6), (2.0, 1.00004, 1.0)))
    prepared = Preprocessing(3, "RAS", (2.0, 1.0, 1.0), (8, 8, 8), NONE).prepare(image)
    assert np.array_equal(prepared.array, image.array)


@settings(max_examples=60)
@given(rows=st.integers(1, 400), columns=st.integers(1, 400), row_mm=st.floats(0.2, 3), column_mm=st.floats(0.2, 3),
       longest=st.sampled_from([28, 112, 224]))
def test_slices_fit_by_their_longest_side_and_keep_their_aspect(rows, columns, row_mm, column_mm, longest):
    geometry = Geometry.of((3, rows, columns), (7.0, row_mm, column_mm), axes="LPS")
    fitted = fitted_geometry(geometry, longest)
    assert fitted.shape[0] == 3 and max(fitted.shape[1:]) == longest
    extent, found = (np.multiply(g.shape, g.spacing_mm) for g in (geometry, fitted))
    np.testing.assert_allclose(found, extent, rtol=1e-9)
    np.testing.assert_allclose(fitted.center_mm, geometry.center_mm, atol=1e-9)
    pixel = extent[1:].max() / longest
    assert all(abs(side / pixel - length) <= 0.5 + 1e-9 or length == 1
               for side, length in zip(extent[1:], fitted.shape[1:], strict=True))


def test_a_volume_for_a_2d_model_keeps_its_slices():
    image = volume(Geometry.of((7, 50, 100), (5.0, 1.0, 1.0), axes="LPS"))
    prepared = Preprocessing(2, "LPS", None, (28, 28), NONE).prepare(image)
    assert prepared.array.shape == (1, 7, 14, 28)
    sagittal = volume(Geometry.of((50, 100, 7), (1.0, 1.0, 5.0), axes="PSR"))
    assert Preprocessing(2, "LPS", None, (28, 28), NONE).prepare(sagittal).geometry.axes == "LPS"


def test_a_picture_is_seen_as_stored():
    picture = volume(Geometry.of((1, 20, 40), (1.0, 1.0, 1.0), axes="LPS"), is_2d=True, spacing_known=False)
    prepared = Preprocessing(2, "LPS", (1.0, 0.5, 0.5), (40, 40), NONE).prepare(picture)
    assert np.array_equal(prepared.array, picture.array)
    with pytest.raises(BadInput, match="2-D model"):
        NATIVE.prepare(picture)


def test_colour_and_grey_pictures_fit_models_of_either():
    picture = volume(Geometry.of((1, 8, 8), (1.0, 1.0, 1.0), axes="LPS"), channels=3, is_2d=True)
    grey = Preprocessing(2, "LPS", None, (8, 8), NONE).prepare(picture)
    np.testing.assert_allclose(grey.array, picture.array.mean(0, keepdims=True), rtol=1e-6)
    colour = Preprocessing(2, "LPS", None, (8, 8), NONE, channels=3)
    assert np.array_equal(colour.prepare(picture).array, picture.array)
    single = volume(picture.geometry, is_2d=True)
    assert np.array_equal(colour.prepare(single).array, np.repeat(single.array, 3, 0))
    with pytest.raises(BadInput, match="needs 2"):
        Preprocessing(2, "LPS", None, (8, 8), NONE, channels=2).prepare(picture)


def test_channels_go_to_the_grid_of_the_first_each_with_its_intensity():
    first = volume(Geometry.of((6, 8, 8), (2.0, 1.0, 1.0), axes="LPS"))
    second = volume(Geometry.of((12, 8, 8), (1.0, 1.0, 1.0), axes="RAS", origin_mm=(-7, -7, -0.5)), seed=1)
    both = Preprocessing(3, "RAS", None, (4, 4, 4), (Intensity("none"), Intensity("none", std=2.0)), channels=2)
    array = both.prepare([first, second]).array
    assert array.shape == (2, 6, 8, 8)
    assert np.array_equal(array[0], NATIVE.prepare(first).array[0])
    assert abs(array[1]).max() < abs(second.array).max() / 2
    far = volume(Geometry.of((6, 8, 8), (2.0, 1.0, 1.0), origin_mm=(500, 0, 0)))
    with pytest.raises(BadInput, match="do not overlap"):
        both.prepare([first, far])


def test_values_that_are_not_numbers_do_not_spread():
    image = volume(Geometry.of((6, 6, 6), (2.0, 2.0, 2.0)))
    image.array[0, 2, 2, 2], image.array[0, 0, 0, 0] = np.nan, np.inf
    prepared = Preprocessing(3, "RAS", (1.0, 1.0, 1.0), (8, 8, 8), (Intensity("robust"),)).prepare(image)
    assert np.isfinite(prepared.array).all()
    image.array[:] = np.nan
    assert np.isfinite(NATIVE.prepare(image).array).all()


@pytest.mark.parametrize("kind", ["robust", "xray"])
def test_a_uniform_image_stays_uniform_when_it_is_resampled(kind):
    image = Volume(np.full((1, 3, 20, 17), 0.7, np.float32), Geometry.of((3, 20, 17), (2.0, 1.0, 1.0)))
    for dims, spacing in ((2, None), (3, (0.9, 0.7, 1.3))):
        model = Preprocessing(dims, "RAS", spacing, (11,) * dims, (Intensity(kind),))
        assert len(np.unique(model.prepare(image).array)) == 1


def test_an_absurd_spacing_is_refused_before_memory_is_gone():
    image = volume(Geometry.of((50, 50, 50), (1000.0, 1000.0, 1000.0)))
    with pytest.raises(BadInput, match="spacing"):
        Preprocessing(3, "RAS", (1.0, 1.0, 1.0), (8, 8, 8), NONE).prepare(image)


@pytest.mark.parametrize("axes", ORIENTATIONS[::7])
def test_labels_follow_their_image(axes):
    geometry = oblique((6, 9, 7), (2.0, 1.0, 1.5), axes)
    labels = np.random.default_rng(0).choice([0, 7, 255], size=(1, *geometry.shape)).astype(np.int16)
    prepared = NATIVE.prepare(Volume(labels.astype(np.float32), geometry))
    indices = NATIVE.prepare_label(Volume(labels, geometry), prepared, {0: 0, 7: 1, 255: 2})
    assert indices.dtype == np.uint8
    assert np.array_equal(np.array([0, 7, 255])[indices], prepared.array[0])
    fine = Preprocessing(3, "RAS", (1.0, 1.0, 1.0), (8, 8, 8), NONE)
    prepared = fine.prepare(Volume(labels.astype(np.float32), geometry))
    assert fine.prepare_label(Volume(labels, geometry), prepared, {0: 0, 7: 1, 255: 2}).shape == prepared.geometry.shape


def test_labels_that_do_not_fit_are_refused():
    geometry = Geometry.of((4, 5, 6), (1.0, 1.0, 1.0))
    prepared = NATIVE.prepare(volume(geometry))
    labels = np.zeros((1, *geometry.shape), np.uint8)
    shifted = Geometry.of((4, 5, 6), (1.0, 1.0, 1.0), origin_mm=(0, 0, 0.01))
    with pytest.raises(BadInput, match="another grid"):
        NATIVE.prepare_label(Volume(labels, shifted), prepared, {0: 0})
    with pytest.raises(BadInput, match="label values 3, 9"):
        indices_of_values(np.array([[0, 9, 3]]), {0: 0, 1: 1})
    with pytest.raises(BadInput, match="256"):
        indices_of_values(np.array([0]), {value: value for value in range(300)})
    check_same_grid(geometry, Geometry.of((4, 5, 6), (1.0, 1.0, 1.0), origin_mm=(0, 0, 1e-4)), "label.nii.gz")


def test_padding_is_centred_and_only_where_needed():
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    padded = pad_centred(array, (5, 3))
    assert padded.shape == (1, 5, 3) and np.array_equal(padded[:, 1:3], array) and padded.sum() == array.sum()
    assert pad_centred(array, (2, 3)) is array


def test_it_survives_json_and_refuses_nonsense():
    for preprocessing in (NATIVE, Preprocessing(2, "LPS", (1.0, 0.5, 0.5), (32, 48), (Intensity("robust"),) * 2, 2)):
        assert from_json(Preprocessing, json.loads(json.dumps(to_json(preprocessing)))) == preprocessing
    for wrong in ({"input_size": (8, 8)}, {"spacing_mm": (1.0, 0.0, 1.0)}, {"intensity": NONE * 2}, {"intensity": ()}):
        with pytest.raises(ValueError, match=r"input_size|spacing_mm|intensit"):
            Preprocessing(**{"spatial_dims": 3, "orientation": "RAS", "spacing_mm": None, "input_size": (8, 8, 8),
                             "intensity": NONE} | wrong)


def test_importing_it_needs_neither_torch_nor_simpleitk():
    import subprocess
    import sys

    code = ("import sys, medmae.datasets.preprocessing; "
            "assert not {'torch', 'SimpleITK', 'monai'} & set(sys.modules), 'a heavy import'")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_images_and_labels_come_onto_one_grid(shared_data):
    folder = shared_data / "volumes"
    preprocessing = Preprocessing(3, "RAS", (2.0, 2.0, 2.0), (32, 32, 32), (Intensity("robust"),))
    for image, label in [("mr_spinal_cord_psr_axes/image.nii.gz", "mr_spinal_cord_psr_axes/label.nii.gz"),
                         ("mr_spinal_cord_oblique_thick/image.nii.gz", "mr_spinal_cord_oblique_thick/label.nii.gz"),
                         ("mr_sarcoma_native/image.nrrd", "mr_sarcoma_native/label.nrrd")]:
        prepared = preprocessing.prepare(read_image(folder / image))
        truth = read_label(folder / label)
        indices = preprocessing.prepare_label(truth, prepared, {0: 0, 1: 1})
        assert indices.shape == prepared.array.shape[1:]
        assert prepared.array.min() >= 0 and prepared.array.max() <= 1 + 1e-6
        truth_ml = truth.array.sum() * truth.geometry.voxel_volume_ml
        assert 0.8 < indices.sum() * prepared.geometry.voxel_volume_ml / truth_ml < 1.2
