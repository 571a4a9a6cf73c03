"""VIS-MAE's pretraining network: size, masking, target and loss (docs/methods.md)."""

from __future__ import annotations

import pytest
import torch

from medmae.errors import BadInput
from medmae.networks import SwinMAE, architecture_for, build_network


def tiny(channels: int = 1) -> SwinMAE:
    torch.manual_seed(0)
    network = build_network(architecture_for("vis-mae", "tiny", "encoder", channels))
    assert isinstance(network, SwinMAE)
    return network.eval()


@pytest.mark.parametrize("channels, expected", [(3, 26_635_860), (1, 26_629_684)])
def test_base_has_the_published_number_of_parameters(channels, expected):
    with torch.device("meta"):
        network = build_network(architecture_for("vis-mae", "base", "encoder", channels))
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == expected
    assert not list(network.buffers())


def test_patches_are_ordered_row_column_channel():
    network = tiny(channels=2)
    images = torch.arange(2 * 8 * 12.0).view(1, 2, 8, 12)
    patches = network.patchify(images)
    assert patches.shape == (1, 6, 32)
    for token, (row, col) in enumerate((r, c) for r in range(2) for c in range(3)):
        expected = [images[0, channel, 4 * row + y, 4 * col + x].item()
                    for y in range(4) for x in range(4) for channel in range(2)]
        assert patches[0, token].tolist() == expected
    assert torch.equal(network.unpatchify(patches, (8, 12)), images)


def test_pixels_of_masked_blocks_never_reach_the_prediction():
    network = tiny()
    images, mask = torch.randn(2, 1, 112, 112), torch.rand(2, 7, 7) < 0.75
    pixels = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    with torch.no_grad():
        prediction = network(images, mask)
        assert torch.equal(network(torch.where(pixels, torch.randn_like(images) * 9, images), mask), prediction)
        assert not torch.equal(network(torch.where(pixels, images, images + 1), mask), prediction)


def test_the_mask_hides_aligned_blocks_of_sixteen_pixels():
    network = tiny()
    assert network.mask_grid((224, 224)) == (14, 14) and network.mask_grid((112, 240)) == (7, 15)
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, 1, 2] = True
    tokens = network.token_mask(mask, (112, 112))
    assert tokens.shape == (1, 28, 28) and tokens.sum() == 16 and tokens[0, 4:8, 8:12].all()


def test_no_absolute_position_is_added():
    network = tiny()
    with torch.no_grad():
        coarsest = network.features(torch.full((1, 1, 112, 112), 0.3))[-1]
    torch.testing.assert_close(coarsest, coarsest[..., :1, :1].expand_as(coarsest), rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_mean_square_over_masked_tokens_of_the_whole_batch():
    network = tiny()
    images, mask = torch.rand(3, 1, 112, 112), torch.rand(3, 7, 7) < torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    prediction = torch.rand(3, 784, 16)
    tokens = network.token_mask(mask, (112, 112)).flatten(1)
    expected = ((prediction - network.patchify(images)) ** 2)[tokens].mean()
    torch.testing.assert_close(network.masked_loss(prediction, images, mask), expected)
    target = network.patchify(images)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(network.masked_loss(prediction, images, mask, normalise_patches=True),
                               ((prediction - target) ** 2)[tokens].mean())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.masked_loss(prediction.bfloat16(), images, mask).dtype == torch.float32


def test_drop_path_grows_over_the_encoder_and_is_mirrored_in_the_decoder():
    with torch.device("meta"):
        network = build_network(architecture_for("vis-mae", "base", "encoder", 3))
    rates = [[block.drop_path.rate for block in stage.blocks] for stage in network.encoder.stages]
    assert [rate for stage in rates for rate in stage] == pytest.approx([0.1 * n / 7 for n in range(8)])
    assert [[block.drop_path.rate for block in stage.blocks] for stage in network.decoder.stages] == rates[-2::-1]


def test_every_odd_block_is_shifted_in_every_stage():
    with torch.device("meta"):
        network = build_network(architecture_for("vis-mae", "base", "encoder", 3))
    for stage in [*network.encoder.stages, *network.decoder.stages]:
        assert [block.shift for block in stage.blocks] == [0, 3]


def test_features_come_from_every_stage_for_any_image_size():
    with torch.no_grad():
        features = tiny().features(torch.randn(1, 1, 70, 101))
    assert [tuple(feature.shape) for feature in features] == [(1, 48, 18, 26), (1, 96, 9, 13), (1, 192, 5, 7)]


def test_a_training_step_reaches_every_parameter():
    network = tiny(channels=3).train()
    images, mask = torch.rand(2, 3, 112, 112), torch.rand(2, 7, 7) < 0.75
    network.masked_loss(network(images, mask), images, mask).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_an_unfit_image_size_or_mask_is_refused():
    with pytest.raises(BadInput, match="multiples of 16"):
        tiny()(torch.randn(1, 1, 100, 112), torch.zeros(1, 7, 7, dtype=torch.bool))
    with pytest.raises(BadInput, match="mask has"):
        tiny()(torch.randn(1, 1, 112, 112), torch.zeros(1, 28, 28, dtype=torch.bool))
