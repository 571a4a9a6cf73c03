"""How sure a model is of each label, against the probabilities of every voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inference_helpers import segmentation_model
from test_inference_segmenter import levels
from test_preprocessing import ORIENTATIONS, oblique

from medmae.inference.outputs import confidence
from medmae.inference.outputs.confidence import Confidence
from medmae.inference.segmenter import Segmenter
from medmae.networks.voxel_head import DISAGREE, VoxelHead
from medmae.volumes import Geometry, Volume


def smooth(geometry, seed=0):
    """An image that changes slowly, so that what lies between voxels is like them."""
    k, j, i = np.meshgrid(*(np.linspace(0, 2, size) for size in geometry.shape), indexing="ij")
    return Volume(((np.sin(2 * k) + np.sin(3 * j) + np.sin(i) + 3) / 6).astype(np.float32)[None], geometry)


@pytest.mark.parametrize("axes", ORIENTATIONS[::9])
def test_on_the_networks_own_grid_it_is_the_mean_over_all_voxels(axes):
    image = levels(oblique((6, 11, 9), (3.0, 0.9, 1.2), axes))
    segmenter = Segmenter(segmentation_model(values=(0, 7, 300)))
    labels, expected = segmenter.segment(image), segmenter.probabilities(image)
    for index, (name, value) in enumerate((("rim", 7), ("core", 300)), 1):
        assert segmenter.last_run.confidence[name] == pytest.approx(expected[index][labels == value].mean(), abs=1e-4)


@pytest.mark.parametrize("grid", [{"spacing": [1.7, 1.3, 1.5]}, {"dims": 2, "size": [32, 32]}])
def test_on_another_grid_it_is_nearly_that(monkeypatch, grid):
    monkeypatch.setattr(confidence, "MOST_POINTS", 30)
    image = smooth(Geometry.of((30, 40, 50), (1.0, 1.0, 1.0)))
    segmenter = Segmenter(segmentation_model(**grid))
    labels, expected = segmenter.segment(image), segmenter.probabilities(image)
    for index, name in enumerate(("rim", "core"), 1):
        assert segmenter.last_run.confidence[name] == pytest.approx(expected[index][labels == index].mean(), abs=0.01)


def test_several_models_and_mirroring_have_one_too():
    image = smooth(Geometry.of((12, 14, 16), (1.0, 1.0, 1.0)))
    model = segmentation_model()
    once, together = Segmenter(model), Segmenter([model, model], mirror=True)
    for segmenter in (once, together):
        segmenter.segment(image)
    assert together.last_run.confidence == pytest.approx(once.last_run.confidence, abs=2e-4)


def test_a_label_that_is_nowhere_has_none():
    image = Volume(np.zeros((1, 9, 9, 9), np.float32), Geometry.of((9, 9, 9), (1.0, 1.0, 1.0)))
    segmenter = Segmenter(segmentation_model(), skip_empty=False)
    segmenter.segment(image)
    assert segmenter.last_run.confidence == {}


def test_planes_count_by_their_voxels_whatever_is_taken_of_them(monkeypatch):
    monkeypatch.setattr(confidence, "MOST_POINTS", 10)
    head, taken = VoxelHead(2, 2), Confidence(2)
    sure, unsure = (torch.tensor([0.0, value]).view(2, 1, 1) for value in (4.0, 1.0))
    taken.take(sure.expand(2, 20, 30), torch.ones(20, 30, dtype=torch.int16), head)
    few = torch.zeros(20, 30, dtype=torch.int16)
    few[:, :10] = DISAGREE  # several models that do not agree: their mean decides
    taken.take(unsure.expand(2, 20, 30), few, head)
    one, other = (float(torch.softmax(value.flatten(), 0)[1]) for value in (sure, unsure))
    assert taken.means() == [pytest.approx((600 * one + 200 * other) / 800, abs=1e-6)]


def test_a_lesion_of_few_voxels_in_a_large_organ_has_its_own(monkeypatch):
    monkeypatch.setattr(confidence, "MOST_POINTS", 12)
    head, taken = VoxelHead(3, 3), Confidence(3)
    features = torch.tensor([0.0, 3.0, 0.0]).view(3, 1, 1).repeat(1, 20, 30)
    features[:, 7, 11] = torch.tensor([0.0, 0.0, 1.0])
    features[:, 7, 12] = torch.tensor([0.0, 0.0, 5.0])
    taken.take(features, features.argmax(0).to(torch.int16), head)
    organ, lesion = taken.means()
    expected = torch.softmax(features, 0)
    assert organ == pytest.approx(float(expected[1, 0, 0]), abs=1e-6)
    assert lesion == pytest.approx(float(expected[2, 7, 11:13].mean()), abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 40, 30), (40, 1, 30), (1, 1, 25), (3, 70, 5)])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("roi", [None, (3.0, 12.0, -60.0, 60.0, -60.0, 60.0)])
def test_of_odd_images_ensembles_and_regions_it_is_the_mean_of_the_winners(shape, members, roi):
    won: dict[int, list[torch.Tensor]] = {1: [], 2: []}

    def sink(_row, logits):
        highest, winner = torch.softmax(logits.double(), 0).max(0)
        for index in won:
            won[index].append(highest[winner == index])

    segmenter = Segmenter([segmentation_model()] * members, mirror=members > 1)
    labels = segmenter.segment(smooth(Geometry.of(shape, (1.0, 1.0, 1.0))), roi=roi, sink=sink)
    for index, name in enumerate(("rim", "core"), 1):
        all_of_it = torch.cat(won[index])
        assert len(all_of_it) == (labels == index).sum()
        expected = pytest.approx(float(all_of_it.mean()), abs=1e-4) if len(all_of_it) else None
        assert segmenter.last_run.confidence.get(name) == expected
