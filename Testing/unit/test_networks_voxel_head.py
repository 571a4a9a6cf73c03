"""Features before the head instead of logits after it: blending and interpolating either gives the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medmae.inference.predictor import WindowPredictor
from medmae.inference.restore import restore_labels
from medmae.inference.sliding_window import finished_planes, sliding_window
from medmae.networks import architecture_for, build_network
from medmae.networks.ensemble import Ensemble
from medmae.networks.voxel_head import DISAGREE, VoxelHead, features_and_head, joined, largest, split_head
from medmae.volumes import Geometry, resampled_geometry

CPU = torch.device("cpu")
CLASSES = 30
NETWORKS = {
    "unetr": {"name": "unetr", "arguments": {"channels": 1, "classes": CLASSES, "patch": 8, "width": 48, "depth": 3,
                                             "heads": 3, "skip_blocks": [1, 2], "feature_size": 6}},
    "swin_unet": {"name": "swin_unet", "arguments": {"channels": 1, "classes": CLASSES, "width": 12, "depths": [1, 1],
                                                     "heads": [1, 2]}},
    "hybrid_unet": {"name": "hybrid_unet", "arguments": {"channels": 1, "classes": CLASSES, "stem_widths": [4, 6],
                                                         "width": 24, "depth": 1, "heads": 2, "decoder_depth": 1}},
}


def network_of(name, seed=0):
    torch.manual_seed(seed)
    return build_network(NETWORKS[name]).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_blending_features_before_the_head_equals_blending_logits(name):
    network = network_of(name)
    dims = 2 if name == "swin_unet" else 3
    image, window = torch.rand(1, *(37, 29, 40)[:dims]), (24, 16, 24)[:dims]
    features, head = split_head(network)
    assert head.features < head.classes == CLASSES and head.is_linear
    blended = torch.cat(list(finished_planes(WindowPredictor(features, CPU, "fp32", batch=2), image, window)), 1)
    assert blended.shape == (head.features, *image.shape[1:])
    logits = head.logits(blended.flatten(1)).view(CLASSES, *image.shape[1:])
    torch.testing.assert_close(logits, sliding_window(network, image, window, batch=2), atol=2e-5, rtol=1e-4)


def test_logits_are_kept_where_they_are_fewer_than_features_or_there_is_no_head_to_split_off():
    few = build_network({"name": "unetr", "arguments": NETWORKS["unetr"]["arguments"] | {"classes": 6}})
    plain = build_network(architecture_for("gl-mae", "tiny", "segmentation", 1, 3))
    for network in (few, plain, nn.Conv3d(1, 40, 1)):
        assert split_head(network) is None
        features, head = features_and_head(network, 6)
        assert features is network and head.features == head.classes == 6
        points = torch.randn(6, 11)
        assert head.logits(points) is points


def test_the_features_and_the_head_make_the_network():
    for name in NETWORKS:
        network = network_of(name)
        features, head = split_head(network)
        image = torch.rand(2, 1, *((20, 24) if name == "swin_unet" else (16, 8, 24)))
        with torch.no_grad():
            expected, found = network(image), features(image)
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(head.logits(other.flatten(1)), one.flatten(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("classes", [1, 2, 118, 256])
def test_the_largest_is_the_first_of_equal_ones_and_always_a_class(classes):
    logits = torch.randint(-3, 4, (classes, 5000), generator=torch.Generator().manual_seed(classes)).float()
    assert torch.equal(largest(logits).long(), torch.from_numpy(logits.numpy().argmax(0)))
    logits[:, ::7] = torch.nan
    assert int(largest(logits).min()) >= 0 and int(largest(logits).max()) < classes
    head = VoxelHead(3, classes, torch.randn(classes, 3), torch.randn(classes))
    points = torch.randn(3, 100_000)
    assert torch.equal(head.winners(points).long(), head.logits(points).argmax(0))


def mean_of_probabilities(logits):
    """The slow reference: (members, K, ...) to the logarithm of the mean of the probabilities."""
    return torch.softmax(logits.double(), 1).mean(0).log().float()


def test_an_ensemble_averages_the_probabilities_of_blended_members():
    members = [network_of("unetr", seed) for seed in range(3)]
    image, window = torch.rand(1, 20, 17, 24), (16, 16, 16)
    features, head = joined(members, CLASSES)
    assert head.features == 18 and not head.is_linear
    blended = torch.cat(list(finished_planes(WindowPredictor(features, CPU, "fp32"), image, window)), 1).flatten(1)
    expected = mean_of_probabilities(torch.stack([sliding_window(one, image, window).flatten(1) for one in members]))
    torch.testing.assert_close(head.logits(blended), expected, atol=1e-4, rtol=1e-4)
    winners = head.winners(blended)
    agreed = winners != DISAGREE
    assert torch.equal(winners[agreed].long(), expected.argmax(0)[agreed]) and 0 < int(agreed.sum()) < len(winners)


def test_an_ensemble_folder_is_split_into_its_members():
    ensemble = Ensemble(members=2, member=NETWORKS["unetr"], channels=1, classes=CLASSES).eval()
    features, head = split_head(ensemble)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(head.logits(features(image)[0].flatten(1)), ensemble(image)[0].flatten(1),
                                   atol=1e-4, rtol=1e-4)


def test_restoring_an_ensemble_equals_interpolating_the_logits_of_every_member():
    torch.manual_seed(0)
    members = [VoxelHead(4, 5, torch.randn(5, 4), torch.randn(5)), VoxelHead(5, 5)]
    from medmae.networks.voxel_head import EnsembleHead

    head = EnsembleHead(members)
    source = Geometry.of((6, 7, 8), (2.0, 2.0, 2.0))
    target = resampled_geometry(source, (0.9, 0.7, 1.3))
    features = torch.nn.functional.interpolate(torch.randn(1, 9, 3, 3, 3), size=source.shape, mode="trilinear")[0]
    labels = np.full(target.shape, 99, np.uint8)
    restore_labels([features], head, source, target, labels, np.arange(5, dtype=np.uint8))
    points = [np.clip(source.to_indices(target.to_world(np.eye(3)[axis] * np.arange(size)[:, None]))[:, axis], 0,
                      source.shape[axis] - 1) for axis, size in enumerate(target.shape)]
    from scipy.ndimage import map_coordinates

    grid = np.stack(np.meshgrid(*points, indexing="ij"))
    dense = torch.from_numpy(np.stack([map_coordinates(one.numpy(), grid, order=1) for one in features]))
    values = mean_of_probabilities(torch.stack([
        own.logits(part) for own, part in zip(members, dense.flatten(1).split([4, 5]), strict=True)])).numpy()
    chosen = np.take_along_axis(values, labels.reshape(1, -1).astype(int), 0)[0]
    assert (chosen >= values.max(0) - 1e-5).all() and len(np.unique(labels)) > 2
