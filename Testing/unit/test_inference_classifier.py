"""Classifying: the view that training saw, slices averaged, and the slice that decides named on the stored grid."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_helpers import MeanLevel, description
from test_preprocessing import ORIENTATIONS, oblique

from medmae.errors import BadInput, Stopped
from medmae.inference.classifier import Classifier
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.out_of_memory import WindowTooLarge
from medmae.inference.pooling import deciding_slices, pool_slices, strongest
from medmae.volumes import Geometry, Volume


def classifier(dims=3, size=None, batch=None, pooling=None, fields=None, **kwargs):
    info = description("classification", dims, size=size, values=(0, 1), names=["dark", "bright"], **kwargs)
    return Classifier(LoadedModel.of(replace(info, **(fields or {})), MeanLevel()), batch=batch, pooling=pooling)


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


def levels(*values):
    """A volume whose slices have these levels."""
    image = uniform(0.0, (len(values), 8, 8))
    image.array[0] = np.array(values, np.float32)[:, None, None]
    return image


@pytest.mark.parametrize(("pooling", "expected"), [
    ("mean", [(-1.0 + 3 - 2 + 0 - 5) / 5, (1 - 3 + 2 + 0 + 5) / 5]), ("max", [3.0, 5.0]),
    ("top40%", [(3.0 + 0) / 2, (5.0 + 2) / 2]), ("top1%", [3.0, 5.0]), ("top100%", [-1.0, 1.0])])
def test_slices_are_pooled_for_each_class(pooling, expected):
    evidence = torch.tensor([-1.0, 3, -2, 0, -5])
    pooled = pool_slices(torch.stack([evidence, -evidence], 1), pooling)
    assert pooled.tolist() == pytest.approx(expected)


def test_how_many_slices_count_follows_the_volume():
    assert [strongest("top10%", slices) for slices in (1, 9, 10, 11, 100)] == [1, 1, 1, 2, 10]
    assert (strongest("max", 50), strongest("mean", 50)) == (1, 50)


def test_the_pooling_asked_for_decides_and_names_its_slice():
    image = levels(0.45, 0.3, 0.45, 0.9, 0.4)
    mean = classifier(2).classify(image)
    assert mean.probabilities["bright"] == pytest.approx(float(torch.sigmoid(torch.tensor(20 * (0.5 - 0.5)))), abs=1e-5)
    greatest = classifier(2, pooling="max").classify(image)
    # dark: 10 x (0.5 - 0.3), bright: 10 x (0.9 - 0.5)
    assert greatest.probabilities["bright"] == pytest.approx(float(torch.sigmoid(torch.tensor(4.0 - 2.0))), abs=1e-5)
    places = {name: index for name, (_, index) in greatest.deciding_slices.items()}
    assert greatest.deciding_slice == greatest.deciding_slices["bright"]
    assert set(places) == {"dark", "bright"} and places["dark"] != places["bright"]
    assert deciding_slices(torch.tensor([[0.0, 1], [5, 5], [2, 0]]), "max", multi_label=True) == [1, 1]
    assert deciding_slices(torch.tensor([[0.0, 1], [5, 5], [2, 0]]), "mean", multi_label=False) == [2, 0]
    with pytest.raises(BadInput, match="top25%"):
        classifier(2, pooling="top0%")


def test_a_saved_pooling_is_used_and_its_temperature_holds_for_no_other():
    fields = {"slice_pooling": "max", "calibration": {"temperature": 2.0, "cases": 30}}
    image = levels(0.3, 0.9)
    saved = classifier(2, fields=fields).classify(image)
    assert saved.probabilities["bright"] == pytest.approx(float(torch.sigmoid(torch.tensor((4.0 - 2.0) / 2))), abs=1e-5)
    assert saved.uncalibrated["bright"] == pytest.approx(float(torch.sigmoid(torch.tensor(2.0))), abs=1e-5)
    other = classifier(2, fields=fields, pooling="mean")
    assert not other.is_calibrated and other.temperature == 1.0
    assert not classifier(2, fields={"calibration": {"temperature": 2.0, "cases": 0}}).is_calibrated


@pytest.mark.parametrize("dims", [2, 3])
def test_several_classes_or_none_may_apply(dims):
    class Both(MeanLevel):
        """Logits of ten times the mean above 0.5, and above 0.2."""

        def forward(self, images):
            level = images.flatten(1).mean(1)
            return torch.stack([10 * (level - 0.5), 10 * (level - 0.2)], 1)

    info = replace(description("classification", dims, values=(0, 1), names=["high", "some"]), multi_label=True,
                   calibration={"temperature": 2.0, "cases": 40})
    model = Classifier(LoadedModel.of(info, Both()))
    found = [model.classify(uniform(level)) for level in (0.9, 0.3, 0.0)]
    assert [one.label for one in found] == ["high, some", "some", "none"]
    assert [one.labels for one in found] == [("high", "some"), ("some",), ()]
    assert found[1].probabilities["some"] == pytest.approx(float(torch.sigmoid(torch.tensor(0.5))), abs=1e-5)
    assert found[1].uncalibrated["some"] == pytest.approx(float(torch.sigmoid(torch.tensor(1.0))), abs=1e-5)
    assert (found[2].deciding_slice is None) == (dims == 3)


@pytest.mark.parametrize("shape", [(3, 4000), (4000, 3), (2500, 2600), (1, 1)])
def test_pictures_of_any_size_and_aspect_are_seen_whole(shape):
    image = uniform(0.0, (1, *shape), is_2d=True, spacing_known=False)
    # A corner is bright, which a crop would lose; a row of three shrunk to one is an average.
    image.array[..., -max(1, shape[0] // 8):, -max(1, shape[1] // 8):] = 1.0
    seen = []

    class Looking(MeanLevel):
        def forward(self, images):
            seen.append(images.clone())
            return super().forward(images)

    info = description("classification", 2, size=[32, 32], values=(0, 1), names=["dark", "bright"])
    Classifier(LoadedModel.of(info, Looking())).classify(image)
    assert seen[0].shape == (1, 1, 32, 32) and float(seen[0].max()) > 0.3


def test_colour_pictures_become_grey_and_a_volume_of_one_slice_has_no_deciding_slice():
    colour = uniform(0.9, (1, 8, 8), is_2d=True)
    colour = replace(colour, array=np.repeat(colour.array, 3, axis=0))
    assert classifier(2).classify(colour).label == "bright"
    assert classifier(2).classify(levels(0.9)).deciding_slice is None


class Hungry(MeanLevel):
    """Runs out of memory with more than `most` images at a time."""

    def __init__(self, most):
        super().__init__()
        self.most, self.batches = most, []

    def forward(self, images):
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append(len(images))
        return super().forward(images)


def test_a_batch_that_memory_does_not_hold_is_halved_and_the_answer_stays_the_same():
    info = description("classification", 2, values=(0, 1), names=["dark", "bright"])
    image = levels(*np.linspace(0.1, 0.9, 11))
    image.array[0, :, 0, 0] = 0  # slices without contrast would be computed once only
    network = Hungry(2)
    found = Classifier(LoadedModel.of(info, network), batch=8).classify(image)
    wanted = Classifier(LoadedModel.of(info, MeanLevel()), batch=1).classify(image)
    assert max(network.batches) == 2 and sum(network.batches) == 11
    assert found.probabilities == pytest.approx(wanted.probabilities) and found.deciding_slice == wanted.deciding_slice
    with pytest.raises(WindowTooLarge, match="one image"):
        Classifier(LoadedModel.of(info, Hungry(0)), batch=8).classify(image)


def test_a_stop_is_obeyed_between_the_layers_of_one_pass():
    reached = []

    class Layer(torch.nn.Identity):
        def forward(self, images):
            reached.append(self)
            time.sleep(0.15)
            return images

    network = torch.nn.Sequential(*(Layer() for _ in range(20)), MeanLevel())
    info = description("classification", 3, values=(0, 1), names=["dark", "bright"])
    with pytest.raises(Stopped):
        Classifier(LoadedModel.of(info, network)).classify(uniform(0.5), should_stop=lambda: len(reached) >= 2)
    assert len(reached) <= 4
