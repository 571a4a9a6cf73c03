"""2-D networks on volumes: slices together or one by one, with neighbours, windows that slide, bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from inference_helpers import description
from test_preprocessing import ORIENTATIONS, oblique
from torch import nn

from medmae.inference.classifier import Classifier
from medmae.inference.loaded_model import LoadedModel
from medmae.inference.restore import restore_labels
from medmae.inference.segmenter import Segmenter
from medmae.inference.slices import slice_logits
from medmae.networks import architecture_for, build_network
from medmae.networks.voxel_head import VoxelHead
from medmae.volumes import Geometry, Volume

CPU = torch.device("cpu")


class Mix(nn.Module):
    """A fixed random mixture of the channels at every pixel: the neighbours count, the place does not."""

    def __init__(self, channels: int, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("weights", torch.randn(classes, channels, generator=torch.Generator().manual_seed(1)))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(images.shape))
        return torch.einsum("kc,bcyx->bkyx", self.weights, images)


def context_model(network, context, *, size, image_channels=1, spacing=None, task="segmentation"):
    channels = image_channels * (2 * context + 1)
    info = description(task, 2, size=size, channels=channels, spacing=spacing)
    return LoadedModel.of(replace(info, context=context), network, precision="fp32")


def neighbours(array, number, context):
    """The slow reference: (C * (2 * context + 1), rows, columns) of (C, k, rows, columns)."""
    places = [min(max(number + offset, 0), array.shape[1] - 1) for offset in range(-context, context + 1)]
    return np.concatenate([array[:, place] for place in places])


def slow_segmentation(model, image):
    """Slice by slice, each alone, all logits kept, then onto the image's grid."""
    prepared = model.preprocessing.prepare(image)
    window, sides = model.window, prepared.array.shape[2:]
    top, left = ((extent - length) // 2 for extent, length in zip(window, sides, strict=True))
    logits = []
    for number in range(prepared.array.shape[1]):
        padded = torch.zeros(1, len(model.info.channels), *window)
        padded[0, :, top:top + sides[0], left:left + sides[1]] = torch.from_numpy(
            neighbours(prepared.array, number, model.info.context))
        with torch.no_grad():
            logits.append(model.network(padded)[0, :, top:top + sides[0], left:left + sides[1]])
    labels, view = prepared.blank(np.uint8)
    classes = len(logits[0])
    restore_labels([torch.stack(logits, 1)], VoxelHead(classes, classes), prepared.geometry, prepared.target, view,
                   np.arange(classes, dtype=np.uint8))
    return labels


@pytest.mark.parametrize("axes", ORIENTATIONS[::3])
@pytest.mark.parametrize("context", [1, 2])
def test_neighbours_are_those_of_the_models_orientation_whatever_the_image_is_stored_in(axes, context):
    image = Volume(np.random.default_rng(3).normal(size=(1, 5, 7, 6)).astype(np.float32),
                   oblique((5, 7, 6), (2.0, 2.0, 2.0), axes))
    network = Mix(2 * context + 1)
    plain = context_model(network, context, size=[7, 7])
    longest = max(plain.preprocessing.prepare(image).grid.shape[1:])
    model = context_model(network, context, size=[longest, longest])
    labels = Segmenter(model, batch=3).segment(image)
    prepared = model.preprocessing.prepare(image)
    expected = [np.einsum("kc,cyx->kyx", network.weights.numpy(), neighbours(prepared.array, number, context)).argmax(0)
                for number in range(prepared.array.shape[1])]
    assert labels.shape == image.geometry.shape
    assert np.array_equal(labels, prepared.to_source_axes(np.stack(expected)))


@pytest.mark.parametrize(("shape", "spacing", "axes"), [
    ((9, 30, 22), (5.0, 0.9, 0.9), "LPS"), ((24, 7, 31), (0.8, 6.0, 1.1), "SAL"), ((13, 12, 1), (1.0, 1.0, 3.0), "PIR"),
    ((1, 40, 17), (1.0, 0.5, 1.5), "RAI")], ids=str)
def test_a_real_network_with_neighbours_equals_the_slow_way_on_the_exact_grid(shape, spacing, axes):
    torch.manual_seed(0)
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 6, 3))
    network.head.weight.data *= 20
    model = context_model(network, 1, size=[48, 48], image_channels=2)
    images = [Volume(np.random.default_rng(seed).random((1, *shape)).astype(np.float32), oblique(shape, spacing, axes))
              for seed in (0, 1)]
    prepared = model.preprocessing.prepare(images)
    assert prepared.array.shape[0] == 2 and max(prepared.array.shape[2:]) == 48
    labels = Segmenter(model, batch=4).segment(images)
    assert labels.shape == shape and len(np.unique(labels)) > 1
    assert (labels != slow_segmentation(model, images)).mean() < 1e-3  # rounding where two classes are equally likely


def test_a_picture_goes_through_a_model_with_neighbours():
    picture = Volume(np.random.default_rng(0).random((1, 1, 12, 9)).astype(np.float32),
                     Geometry.of((1, 12, 9), (1.0, 1.0, 1.0), axes="LPS"), is_2d=True, spacing_known=False)
    network = Mix(5)
    found = Segmenter(context_model(network, 2, size=[12, 12])).segment(picture)
    alone = Mix(1)
    alone.weights = network.weights.sum(1, keepdim=True)
    assert np.array_equal(found, Segmenter(context_model(alone, 0, size=[12, 12])).segment(picture))


def test_the_slices_of_a_classified_volume_have_their_neighbours():
    seen = []

    class Record(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images.mean((2, 3))

    image = Volume(np.random.default_rng(0).random((1, 5, 8, 8)).astype(np.float32),
                   Geometry.of((5, 8, 8), (3.0, 1.0, 1.0), axes="LPS"))
    model = context_model(Record(), 1, size=[8, 8], task="classification")
    Classifier(model, batch=2).classify(image)
    expected = np.stack([neighbours(image.array, number, 1) for number in range(5)])
    assert np.array_equal(torch.cat(seen).numpy(), expected)


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_the_number_of_slices_at_once_changes_nothing(batch):
    torch.manual_seed(0)
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 3, 2)).eval()
    array = np.random.default_rng(0).random((1, 7, 20, 33)).astype(np.float32)
    array[:, 2:6] = 0
    found = list(slice_logits(network, array, (48, 48), context=1, batch=batch, device=CPU))
    assert [part.shape[1] for part in found] == {1: [1] * 7, 3: [3, 3, 1], 50: [7]}[batch]
    padded = np.zeros((1, 7, 48, 48), np.float32)
    padded[:, :, 14:34, 7:40] = array
    with torch.no_grad():
        expected = [network(torch.from_numpy(neighbours(padded, number, 1))[None])[0, :, 14:34, 7:40]
                    for number in range(7)]
    torch.testing.assert_close(torch.cat(found, 1), torch.stack(expected, 1), rtol=1e-4, atol=1e-5)


def test_slices_without_content_are_computed_once():
    network = Mix(3)
    array = np.zeros((1, 40, 6, 6), np.float32)
    array[:, 20] = 1.0
    parts = list(slice_logits(network, array, (6, 6), context=1, batch=4, device=CPU))
    assert sum(size[0] for size in network.sizes) == 4  # air, and three stacks that touch slice 20
    assert torch.equal(torch.cat(parts, 1)[:, 20], network(torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
                                                          .expand(1, 3, 6, 6))[0])


@pytest.mark.parametrize(("shape", "spacing"), [((1, 2000, 3000), None), ((3, 90, 640), [3.0, 1.0, 1.0])])
def test_however_large_the_image_is_the_network_sees_a_few_windows_at_once(shape, spacing):
    network = Mix(3)
    model = context_model(network, 1, size=[64, 64], spacing=spacing)
    image = Volume(np.random.default_rng(0).random((1, *shape)).astype(np.float32),
                   Geometry.of(shape, (3.0, 1.0, 1.0), axes="LPS"))
    assert Segmenter(model, batch=4).segment(image).shape == shape
    assert all(size[0] <= 4 and size[1:] == (3, 64, 64) for size in network.sizes)
    assert len(network.sizes) > (1 if spacing else 0)


def test_windows_that_only_touch_are_the_quarters_of_the_image():
    torch.manual_seed(0)
    network = build_network(architecture_for("vis-mae", "tiny", "segmentation", 1, 2)).eval()
    array = np.random.default_rng(0).random((1, 1, 224, 224)).astype(np.float32)
    found = torch.cat(list(slice_logits(network, array, (112, 112), overlap=0.0, batch=2, device=CPU)), 1)[:, 0]
    image = torch.from_numpy(array[:, 0])[None]
    with torch.no_grad():
        quarters = [[network(image[:, :, row:row + 112, column:column + 112])[0] for column in (0, 112)]
                    for row in (0, 112)]
    torch.testing.assert_close(found, torch.cat([torch.cat(row, 2) for row in quarters], 1), rtol=1e-4, atol=1e-5)


def test_slices_larger_than_the_window_have_their_neighbours_too():
    network = Mix(3)
    image = Volume(np.random.default_rng(0).normal(size=(1, 4, 37, 45)).astype(np.float32),
                   Geometry.of((4, 37, 45), (4.0, 1.0, 1.0), axes="LPS"))
    labels = Segmenter(context_model(network, 1, size=[16, 16], spacing=[4.0, 1.0, 1.0])).segment(image)
    expected = [np.einsum("kc,cyx->kyx", network.weights.numpy(), neighbours(image.array, number, 1)).argmax(0)
                for number in range(4)]
    assert (labels == np.stack(expected)).mean() > 0.999
