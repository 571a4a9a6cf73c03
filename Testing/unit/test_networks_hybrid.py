"""The hybrid networks: nothing of hidden patches is seen, and all that is pretrained finds its place."""

from __future__ import annotations

import copy

import pytest
import torch

from medmae.errors import BadInput
from medmae.networks import architecture_following, architecture_for, build_network, transfer_encoder
from medmae.networks.hybrid import HybridEncoder, VisibleNorm
from medmae.networks.hybrid_classifier import HybridClassifier
from medmae.networks.hybrid_mae import HybridMae
from medmae.networks.hybrid_unet import HybridUnet

SIZES = {"stem_widths": (4, 6), "width": 12, "depth": 2, "heads": 2}  # patches of 4 voxels
GRID = (2, 3, 2)


@pytest.fixture
def volumes() -> torch.Tensor:
    """Two volumes of 2 x 3 x 2 patches."""
    return torch.rand(2, 1, 8, 12, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> HybridMae:
    """A small pretraining network whose vectors are all drawn at random, norms and biases too."""
    torch.manual_seed(1)
    network = HybridMae(channels=1, decoder_depth=1, **SIZES)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


KEEP = torch.tensor([[0, 4, 7], [2, 3, 11]])


def hidden_voxels(keep: torch.Tensor) -> torch.Tensor:
    """True where a voxel belongs to a hidden patch: (B, 1, 8, 12, 8)."""
    tokens = torch.ones(len(keep), 12).scatter(1, keep, 0.0).view(len(keep), 1, *GRID)
    return torch.nn.functional.interpolate(tokens, scale_factor=4.0).bool()


@pytest.mark.parametrize("noise", [5.0, float("inf")])
def test_what_is_hidden_changes_nothing_of_the_answer(network, volumes, noise):
    if noise == float("inf"):
        other = torch.where(hidden_voxels(KEEP), torch.tensor(1e30), volumes)
    else:
        other = torch.where(hidden_voxels(KEEP), noise * torch.randn(volumes.shape), volumes)
    assert not torch.equal(other, volumes)
    for one, two in zip(network(volumes, KEEP), network(other, KEEP), strict=True):
        assert torch.equal(one, two)


def test_what_is_visible_does_change_the_prediction_of_hidden_patches(network, volumes):
    other = torch.where(hidden_voxels(KEEP), volumes, volumes + 0.3 * torch.rand(volumes.shape))
    masked = torch.ones(2, 12, dtype=torch.bool).scatter(1, KEEP, False)
    difference = (network(volumes, KEEP)[1] - network(other, KEEP)[1])[masked]
    assert (difference.abs().amax(1) > 1e-3).all()


def test_with_all_patches_kept_the_encoder_sees_what_segmentation_sees(network, volumes):
    everything = torch.arange(12).expand(2, -1)
    masked, intact = network.encoder(volumes, everything), network.encoder(volumes)
    for one, two in zip((*masked[:2], *masked[2]), (*intact[:2], *intact[2]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(volumes, everything)[1], network(volumes)[1], rtol=1e-4, atol=1e-4)


def test_features_are_zero_at_hidden_places_and_only_there(network, volumes):
    skips = network.encoder(volumes, KEEP)[2]
    hidden = hidden_voxels(KEEP)
    assert [tuple(skip.shape[2:]) for skip in skips] == [(8, 12, 8), (4, 6, 4)]
    for level, skip in enumerate(skips):
        coarse = hidden[:, :, ::2**level, ::2**level, ::2**level].expand_as(skip)
        assert (skip[coarse] == 0).all() and (skip[~coarse] != 0).all()


def test_norms_have_the_statistics_of_visible_places():
    norm, maps = VisibleNorm(3), torch.randn(2, 3, 4, 4, 4) * 3 + 5
    visible = torch.zeros(2, 1, 4, 4, 4)
    visible[:, :, :2] = 1
    alone = torch.nn.functional.instance_norm(maps[:, :, :2])
    torch.testing.assert_close(norm(maps, visible)[:, :, :2], alone, rtol=1e-4, atol=1e-5)
    assert (norm(maps, visible)[:, :, 2:] == 0).all()


def test_the_loss_counts_hidden_patches_only(network, volumes):
    target = network.patchify(volumes)
    wrong_where_visible = target.scatter(1, KEEP[..., None].expand(-1, -1, target.shape[2]), 9.0)
    assert network.masked_loss(wrong_where_visible, volumes, KEEP) == 0
    assert network.masked_loss(target + 2, volumes, KEEP) == pytest.approx(4.0)
    torch.testing.assert_close(network.unpatchify(target, GRID), volumes)


def test_pretraining_fills_all_of_the_segmentation_network_but_its_head(network):
    unet = HybridUnet(channels=1, classes=3, decoder_depth=1, **SIZES)
    report = transfer_encoder(network.state_dict(), unet)
    assert set(report.missing) == {"head.weight", "head.bias"} and report.encoder_fraction == 1
    assert {name.split(".")[0] for name in report.unexpected} == {"mask_tokens", "voxels"}
    classifier = HybridClassifier(channels=1, classes=2, **SIZES)
    assert set(transfer_encoder(network.state_dict(), classifier).missing) == {"head.weight", "head.bias"}


def test_the_segmentation_network_computes_what_was_pretrained(network, volumes):
    unet = HybridUnet(channels=1, classes=1, decoder_depth=1, **SIZES)
    transfer_encoder(network.state_dict(), unet)
    unet.head.load_state_dict(network.voxels.state_dict())
    torch.testing.assert_close(network.patchify(unet(volumes)), network(volumes)[1])


def test_a_stem_for_more_channels_answers_equal_channels_as_before(network, volumes):
    unet = HybridUnet(channels=2, classes=1, decoder_depth=1, **SIZES)
    report = transfer_encoder(network.state_dict(), unet)
    assert set(report.missing) == {"head.weight", "head.bias"} and len(report.resized) == 2
    unet.head.load_state_dict(network.voxels.state_dict())
    torch.testing.assert_close(network.patchify(unet(volumes.expand(-1, 2, -1, -1, -1))), network(volumes)[1],
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 12, 8), (1, 9, 30), (5, 4, 3), (1, 1, 1)])
@pytest.mark.parametrize("make", [HybridUnet, HybridClassifier])
def test_volumes_of_any_size_are_answered(make, size):
    network = make(channels=2, classes=3, **SIZES)
    answer = network(torch.rand(1, 2, *size))
    assert answer.shape == ((1, 3, *size) if make is HybridUnet else (1, 3)) and answer.isfinite().all()


def test_the_pretraining_network_names_the_sides_that_it_takes(network):
    assert network.grid((8, 12, 4)) == (2, 3, 1)
    with pytest.raises(BadInput, match="multiples of 4"):
        network(torch.rand(1, 1, 8, 12, 6))
    [features] = network.features(torch.rand(1, 1, 8, 11, 6))
    assert features.shape == (1, 12, 2, 3, 2)


def test_every_parameter_learns(network, volumes):
    cls, prediction = network(volumes, KEEP)
    (network.masked_loss(prediction, volumes, KEEP) + cls.square().sum()).backward()
    assert [name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()] == []
    unet = HybridUnet(channels=1, classes=2, deep_supervision=1, **SIZES)
    sum(logits.square().mean() for logits in unet.deep_logits(volumes)).backward()
    assert [name for name, one in unet.named_parameters() if one.grad is None] == []


def test_gradients_do_not_reach_hidden_voxels(network, volumes):
    volumes.requires_grad_()
    cls, prediction = network(volumes, KEEP)
    (prediction.square().sum() + cls.sum()).backward()
    hidden = hidden_voxels(KEEP)
    assert (volumes.grad[hidden] == 0).all() and (volumes.grad[~hidden] != 0).all()


def test_an_intact_volume_has_a_cls_that_depends_on_all_of_it(network, volumes):
    encoder = copy.deepcopy(network.encoder)
    cls = encoder(volumes)[0]
    other = volumes.clone()
    other[0, 0, -1, -1, -1] += 1
    changed = (encoder(other)[0] - cls).abs().amax(1)
    assert cls.shape == (2, 12) and changed[0] > 1e-6 and changed[1] == 0


def test_deep_logits_begin_with_the_full_ones_and_are_halved(volumes):
    unet = HybridUnet(channels=1, classes=3, deep_supervision=1, **SIZES)
    logits = unet.deep_logits(volumes[:, :, :7])
    assert [tuple(one.shape[2:]) for one in logits] == [(7, 12, 8), (4, 6, 4)]
    torch.testing.assert_close(logits[0], unet(volumes[:, :, :7]))


def test_a_classifier_pools_patches_or_takes_cls(volumes):
    for pool in ("mean", "cls"):
        torch.manual_seed(3)
        network = HybridClassifier(channels=1, classes=2, pool=pool, **SIZES)
        cls, tokens, _ = network.encoder(volumes)
        torch.testing.assert_close(network(volumes), network.head(tokens.mean(1) if pool == "mean" else cls))
    assert len(HybridClassifier(channels=1, classes=2, head="mlp", **SIZES).head) == 5


@pytest.mark.parametrize("make", [
    lambda: HybridEncoder(channels=1, stem_widths=(), width=12, depth=1, heads=2),
    lambda: HybridEncoder(channels=1, stem_widths=(4,) * 6, width=12, depth=1, heads=2),
    lambda: HybridEncoder(channels=1, stem_widths=(4, 6), width=14, depth=1, heads=2),
    lambda: HybridUnet(channels=1, classes=2, deep_supervision=2, **SIZES),
    lambda: HybridClassifier(channels=1, classes=2, pool="max", **SIZES),
])
def test_impossible_sizes_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_networks_for_tasks_follow_the_sizes_of_the_encoder():
    source = architecture_for("gl-mae", "tiny-hybrid", "encoder", 1)
    source["arguments"] |= {"stem_widths": [4, 6], "width": 12, "heads": 2, "decoder_depth": 1}
    unet = build_network(architecture_following(source, "gl-mae", "tiny-hybrid", "segmentation", 1, 3))
    assert isinstance(unet, HybridUnet) and unet.encoder.patch == 4 and len(unet.decoder.blocks) == 1
    assert isinstance(build_network(architecture_for("gl-mae", "tiny-hybrid", "classification", 1, 3)),
                      HybridClassifier)
