"""Probability maps and uncertainty, taken row by row, against the probabilities of the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_helpers import segmentation_model
from test_inference_segmenter import levels
from test_preprocessing import ORIENTATIONS, oblique

from medmae.errors import BadInput
from medmae.inference.outputs import row_outputs
from medmae.inference.outputs.probability_maps import ProbabilityMaps, file_names
from medmae.inference.outputs.row_outputs import RowOutputs
from medmae.inference.outputs.uncertainty import UncertaintyMap, normalised_entropy
from medmae.inference.segmenter import Segmenter
from medmae.volumes import Geometry, Volume
from medmae.volumes.region import region_of_box


def outputs_of(segmenter, image, folder, roi=None):
    maps, uncertainty = ProbabilityMaps(folder), UncertaintyMap()
    labels = segmenter.segment(image, roi=roi, sink=RowOutputs([maps, uncertainty]))
    region = None if roi is None else region_of_box(roi, image.geometry)
    geometry = image.geometry
    count = len(segmenter.values) - 1
    return (labels, [one.copy() for one in maps.finished(region, geometry, count)],
            uncertainty.finished(region, geometry))


@pytest.mark.parametrize("axes", ORIENTATIONS[::5])
@pytest.mark.parametrize(("dims", "spacing"), [(3, None), (3, [1.5, 1.5, 1.5]), (2, None)])
def test_rows_make_the_maps_of_the_whole_image(tmp_path, monkeypatch, axes, dims, spacing):
    monkeypatch.setattr(row_outputs, "VALUES_AT_ONCE", 50)
    image = levels(oblique((6, 11, 9), (3.0, 0.9, 1.2), axes))
    segmenter = Segmenter(segmentation_model(dims=dims, spacing=spacing, values=(0, 7, 300)))
    _, maps, uncertainty = outputs_of(segmenter, image, tmp_path)
    expected = segmenter.probabilities(image)
    for found, wanted in zip(maps, expected[1:], strict=True):
        assert np.abs(found - 255 * wanted).max() <= 0.51
    entropy = -(expected * np.log(np.maximum(expected, 1e-30))).sum(0) / np.log(3)
    assert np.abs(uncertainty - 255 * entropy).max() <= 0.51
    assert not list(tmp_path.iterdir())  # the temporary file has no name


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR"])
def test_maps_are_zero_outside_of_the_region(tmp_path, axes):
    image = levels(oblique((9, 11, 10), (2.0, 1.0, 1.5), axes))
    centre = image.geometry.center_mm
    roi = tuple(float(value) for axis in range(3) for value in (centre[axis] - 4, centre[axis] + 3))
    segmenter = Segmenter(segmentation_model())
    _, maps, uncertainty = outputs_of(segmenter, image, tmp_path, roi)
    _, whole, whole_uncertainty = outputs_of(segmenter, image, tmp_path)
    world = image.geometry.to_world(np.stack(np.meshgrid(*map(np.arange, image.geometry.shape), indexing="ij"), -1))
    inside = np.all([(world[..., axis] >= roi[2 * axis]) & (world[..., axis] <= roi[2 * axis + 1])
                     for axis in range(3)], axis=0)
    assert inside.any()
    for found, full in [*zip(maps, whole, strict=True), (uncertainty, whole_uncertainty)]:
        assert np.array_equal(found, np.where(inside, full, 0))


def test_a_region_of_nothing_but_air_has_empty_maps(tmp_path):
    """Nothing goes through the network, and no rows come."""
    geometry = Geometry.of((30, 60, 60), (4.0, 4.0, 4.0))
    array = np.full((1, 30, 60, 60), -1000, np.float32)
    array[0, 5:25, 5:25, 5:25] = 40
    model = segmentation_model()
    ct = replace(model, info=replace(model.info, channels=[{"name": "CT", "modality": "CT"}]))
    segmenter = Segmenter(ct)
    labels, maps, uncertainty = outputs_of(segmenter, Volume(array, geometry, modality="CT"), tmp_path,
                                           (200, 230, 200, 230, 20, 100))
    assert segmenter.last_run.computed == 0 and segmenter.last_run.confidence == {}
    assert not labels.any() and len(maps) == 2 and not np.any(maps) and not uncertainty.any()
    assert maps[0].shape == uncertainty.shape == geometry.shape


def test_entropy_is_0_where_one_is_certain_and_1_where_all_are_alike():
    found = normalised_entropy(torch.tensor([[1.0, 0.25, 0.5], [0.0, 0.25, 0.5], [0.0, 0.25, 0.0], [0.0, 0.25, 0.0]]))
    assert found.tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_file_names_of_labels_are_safe_and_unique():
    names = file_names(["liver", "Liver", "a/b", "a\\b", "../..", "", "kidney left", "Läsion", "x" * 200, "liver_2"])
    assert names == ["liver", "Liver_2", "a_b", "a_b_2", "label", "label_2", "kidney_left", "Läsion", "x" * 60,
                     "liver_2_2"]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medmae.inference.spilling._reserve", full)
    image = levels(oblique((4, 5, 6), (1.0, 1.0, 1.0), "RAS"))
    with pytest.raises(BadInput, match="Probability maps need .* of room"):
        outputs_of(Segmenter(segmentation_model()), image, tmp_path)
    assert not list(tmp_path.iterdir())


def test_maps_whose_memory_is_given_back_on_the_way_are_the_same(tmp_path, monkeypatch):
    image = levels(oblique((6, 11, 9), (3.0, 0.9, 1.2), "PSR"))
    segmenter = Segmenter(segmentation_model())
    _, expected, _ = outputs_of(segmenter, image, tmp_path)
    monkeypatch.setattr("medmae.inference.outputs.probability_maps.RELEASE_BYTES", 1)
    _, found, _ = outputs_of(segmenter, image, tmp_path)
    assert np.array_equal(found, expected) and np.any(found)
