"""Classifying: the view that training saw, slices averaged, and the slice that decides named on the stored grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_helpers import MeanLevel, description
from test_preprocessing import ORIENTATIONS, oblique

from medmae.errors import BadInput, Stopped
from medmae.inference.classifier import Classifier
from medmae.inference.loaded_model import LoadedModel
from medmae.volumes import Geometry, Volume


def classifier(dims=3, size=None, batch=None, **kwargs):
    info = description("classification", dims, size=size, values=(0, 1), names=["dark", "bright"], **kwargs)
    return Classifier(LoadedModel.of(info, MeanLevel()), batch=batch)


def uniform(level, shape=(8, 8, 8), **kwargs):
    return Volume(np.full((1, *shape), level, np.float32), Geometry.of(shape, (1.0, 1.0, 1.0), axes="LPS"), **kwargs)


@pytest.mark.parametrize("dims", [2, 3])
def test_probabilities_follow_the_network(dims):
    found = classifier(dims).classify(uniform(0.7))
    assert found.label == "bright" and list(found.probabilities) == ["dark", "bright"]
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.probabilities["bright"] == pytest.approx(float(torch.sigmoid(torch.tensor(4.0))), abs=1e-5)
    assert classifier(dims).classify(uniform(0.2)).label == "dark"


def test_a_volume_larger_than_the_window_is_seen_in_its_middle():
    image = uniform(0.0, (20, 20, 20))
    image.array[:, 6:14, 6:14, 6:14] = 1.0
    assert classifier().classify(image).label == "bright"


def test_a_small_image_is_padded():
    assert classifier(size=[16, 16, 16]).classify(uniform(1.0)).label == "dark"


@pytest.mark.parametrize("axes", ORIENTATIONS[::3])
def test_the_deciding_slice_is_named_on_the_stored_grid(axes):
    geometry = oblique((8, 8, 8), (1.0, 1.0, 1.0), axes)
    model = classifier(dims=2, batch=3)
    empty = Volume(np.zeros((1, 8, 8, 8), np.float32), geometry)
    axis = model.model.preprocessing.prepare(empty).change.order[0]
    array = np.full((1, 8, 8, 8), 0.55, np.float32)
    np.moveaxis(array, axis + 1, 0)[2] = 1.0
    found = model.classify(Volume(array, geometry))
    assert found.label == "bright" and found.deciding_slice == (axis, 2)


def test_single_images_have_no_deciding_slice():
    assert classifier(dims=2).classify(uniform(0.9, (1, 8, 8), is_2d=True)).deciding_slice is None
    assert classifier(dims=3).classify(uniform(0.9)).deciding_slice is None


def test_the_mean_of_the_slices_decides():
    image = uniform(0.4)
    image.array[0, 0] = 1.0
    assert classifier(dims=2).classify(image).label == "dark"


def test_stops_and_wrong_models():
    with pytest.raises(Stopped):
        classifier(dims=2, batch=1).classify(uniform(0.5), should_stop=lambda: True)
    with pytest.raises(BadInput, match="medmae segment"):
        Classifier(LoadedModel.of(description("segmentation"), MeanLevel()))
