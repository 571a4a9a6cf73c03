"""The 3-D ViT encoder, its positions, its classifier and its masked autoencoder."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.networks import VitMae, architecture_for, build_network
from medmae.networks.vit import VitBlock, VitEncoder, patchify, position_table, resized_positions, unpatchify

CPU = torch.device("cpu")


def tiny(channels: int = 1, **changes) -> VitMae:
    torch.manual_seed(0)
    architecture = architecture_for("gl-mae", "tiny", "encoder", channels)
    network = build_network(architecture | {"arguments": architecture["arguments"] | changes})
    assert isinstance(network, VitMae)
    return network.eval()


def test_the_base_encoder_has_the_published_number_of_parameters_and_positions():
    with torch.device("meta"):
        network = build_network(architecture_for("gl-mae", "base", "encoder", 1))
    assert sum(parameter.numel() for parameter in network.encoder.parameters()) == 88_203_264
    assert position_table((6, 6, 6), 768, CPU, class_token=True).numel() == 166_656
    assert not list(network.buffers())


def test_positions_have_the_published_layout():
    grid, width = (2, 3, 4), 24
    table = position_table(grid, width, CPU, class_token=True)
    assert table.shape == (25, width) and torch.all(table[0] == 0)
    place = 0
    for k in range(2):
        for j in range(3):
            for i in range(4):
                place += 1
                expected = []
                for position in (k, j, i):
                    angles = [position * 10000 ** (-n / (width / 6)) for n in range(width // 6)]
                    expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
                assert table[place].tolist() == pytest.approx(expected, abs=1e-6)


@given(st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)))
def test_no_two_places_of_any_grid_have_the_same_position(grid):
    table = position_table(grid, 12, CPU)
    assert len(torch.unique(table, dim=0)) == len(table) == grid[0] * grid[1] * grid[2]


def test_a_smaller_grid_has_the_positions_of_the_corner_of_a_larger_one():
    large = position_table((5, 6, 7), 48, CPU).view(5, 6, 7, 48)
    assert torch.equal(position_table((2, 4, 3), 48, CPU).view(2, 4, 3, 48), large[:2, :4, :3])


def slow_trilinear(table: torch.Tensor, grid: tuple[int, ...], wanted: tuple[int, ...]) -> torch.Tensor:
    """Trilinear resizing place by place: a place at the middle of its share of the axis, clamped to the grid."""
    image, rows = table.view(*grid, -1), []
    for place in np.ndindex(*wanted):
        value = torch.zeros(table.shape[1])
        ends = []
        for position, before, after in zip(place, grid, wanted, strict=True):
            at = min(max((position + 0.5) * before / after - 0.5, 0.0), before - 1)
            low = min(int(at), before - 1)
            ends.append([(low, 1 - (at - low)), (min(low + 1, before - 1), at - low)])
        for corner in itertools.product(*ends):
            value += math.prod(weight for _, weight in corner) * image[tuple(index for index, _ in corner)]
        rows.append(value)
    return torch.stack(rows)


@pytest.mark.parametrize("grid, wanted", [((6, 6, 6), (12, 12, 2)), ((12, 12, 2), (3, 5, 4)),
                                          ((10, 10, 10), (14, 14, 7)), ((1, 4, 2), (2, 2, 2))], ids=str)
def test_a_stored_table_is_resized_on_the_true_grid(grid, wanted):
    table = torch.randn(math.prod(grid), 8)
    torch.testing.assert_close(resized_positions(table, grid, wanted), slow_trilinear(table, grid, wanted),
                               rtol=1e-4, atol=1e-5)
    with_class = torch.cat([torch.full((1, 8), 7.0), table])
    resized = resized_positions(with_class, grid, wanted)
    assert torch.equal(resized[0], with_class[0]) and torch.equal(resized[1:], resized_positions(table, grid, wanted))


def test_a_stored_table_is_exact_on_its_own_grid_and_not_taken_for_that_of_a_cube():
    network = tiny(position_grid=[12, 12, 2])
    torch.nn.init.normal_(network.encoder.position_table)
    assert network.encoder.positions((12, 12, 2), CPU) is network.encoder.position_table
    volumes = torch.zeros(1, 1, 96, 96, 16)  # every token is its position
    network.encoder.blocks, network.encoder.norm = torch.nn.ModuleList(), torch.nn.Identity()
    torch.testing.assert_close(network.encode(volumes)[1][0], network.encoder.position_table)


def test_a_network_with_a_table_starts_as_the_one_that_computes_its_positions():
    plain, stored = tiny(), tiny(position_grid=(2, 3, 2))
    assert set(stored.state_dict()) - set(plain.state_dict()) == {"encoder.position_table", "decoder.position_table"}
    stored.load_state_dict(plain.state_dict(), strict=False)
    volumes, keep = torch.randn(1, 1, 16, 24, 16), torch.tensor([[0, 5, 7]])
    with torch.no_grad():
        for ours, theirs in zip(stored(volumes, keep), plain(volumes, keep), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert all(torch.isfinite(part).all() for part in stored(torch.randn(1, 1, 48, 16, 8), keep))


def test_a_decoder_512_wide_needs_a_table_because_six_does_not_divide_it():
    sizes = {"decoder_width": 512, "decoder_heads": 16, "decoder_depth": 1}
    with pytest.raises(BadInput, match="512 is not divisible by 16 heads and by 6"):
        tiny(**sizes)
    network = tiny(**sizes, position_grid=[2, 2, 2], decoder_class_token=True)
    assert network.decoder.position_table.shape == (9, 512) and network.encoder.position_table.shape == (8, 192)
    assert network(torch.randn(1, 1, 16, 16, 24), torch.tensor([[3]]))[1].shape == (1, 12, 512)


@pytest.mark.parametrize("patch, grid", [((2, 8, 8), (8, 2, 3)), ((4, 2, 1), (4, 8, 24)), (8, (2, 2, 3))], ids=str)
def test_patches_of_any_sides_are_cut_and_put_back(patch, grid):
    network = tiny(channels=2, patch=patch)
    volumes = torch.randn(1, 2, 16, 16, 24)
    assert network.grid(volumes.shape[2:]) == grid
    patches = network.patchify(volumes)
    assert patches.shape == (1, math.prod(grid), 2 * math.prod(network.patch))
    assert torch.equal(network.unpatchify(patches, grid), volumes)
    expected = network.encoder.patch_embed.proj(volumes).flatten(2).transpose(1, 2)
    torch.testing.assert_close(network.encoder.patch_embed(patches), expected, rtol=1e-3, atol=1e-4)
    assert network(volumes, torch.tensor([[1, 4]]))[1].shape == patches.shape


def test_pretraining_predicts_what_decoding_does_but_only_where_tokens_were_dropped():
    for changes in ({}, {"decoder_class_token": True}):
        network = tiny(**changes)
        volumes = torch.rand(2, 1, 16, 24, 16)
        keep = torch.tensor([[5, 0, 7], [11, 2, 1]])
        with torch.no_grad():
            cls, tokens = network.encode(volumes, keep)
            expected = network.decode(tokens, keep, (2, 3, 2), cls=cls)
            cls_again, prediction = network(volumes, keep)
        dropped = torch.ones(2, 12, dtype=torch.bool).scatter(1, keep, False)
        assert torch.equal(cls, cls_again) and not prediction[~dropped].any()
        torch.testing.assert_close(prediction[dropped], expected[dropped])
        torch.testing.assert_close(network.masked_loss(prediction, volumes, keep),
                                   network.masked_loss(expected, volumes, keep))


def test_patches_are_ordered_k_j_i_channel():
    volumes = torch.arange(2 * 4 * 6 * 2.0).view(1, 2, 4, 6, 2)
    patches = patchify(volumes, 2)
    assert patches.shape == (1, 6, 16)
    for token, (k, j) in enumerate((k, j) for k in range(2) for j in range(3)):
        expected = [volumes[0, channel, 2 * k + z, 2 * j + y, x].item()
                    for z in range(2) for y in range(2) for x in range(2) for channel in range(2)]
        assert patches[0, token].tolist() == expected
    assert torch.equal(unpatchify(patches, 2, (2, 3, 1)), volumes)


def test_the_patch_embedding_equals_a_strided_convolution():
    encoder = VitEncoder(channels=2, patch=4, width=12, depth=0, heads=2, class_token=False)
    torch.nn.init.normal_(encoder.patch_embed.proj.bias)
    volumes = torch.randn(2, 2, 8, 12, 4)
    expected = encoder.patch_embed.proj(volumes).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.patch_embed(patchify(volumes, 4)), expected, rtol=1e-4, atol=1e-5)


def test_a_block_equals_torchs_pre_norm_transformer_layer_with_the_same_weights():
    torch.manual_seed(0)
    ours = VitBlock(width=24, heads=4)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = torch.nn.TransformerEncoderLayer(24, 4, 96, dropout=0.0, activation="gelu", layer_norm_eps=1e-6,
                                              batch_first=True, norm_first=True)
    names = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear": "mlp.fc"}
    state = {}
    for name in theirs.state_dict():
        own = name
        for before, after in names.items():
            own = own.replace(before, after)
        state[name] = ours.state_dict()[own]
    theirs.load_state_dict(state)
    tokens = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-4)


def test_dropped_tokens_never_reach_the_encoder():
    network = tiny()
    volumes = torch.randn(2, 1, 32, 24, 40)
    keep = torch.stack([torch.randperm(60)[:15] for _ in range(2)])
    dropped = torch.ones(2, 60, dtype=torch.bool).scatter(1, keep, False)
    noise = patchify(volumes, 8)
    noise[dropped] = 77.0
    changed = unpatchify(noise, 8, (4, 3, 5))
    with torch.no_grad():
        cls, tokens = network.encode(volumes, keep)
        cls_changed, tokens_changed = network.encode(changed, keep)
    assert tokens.shape == (2, 15, 192) and cls.shape == (2, 192)
    assert torch.equal(cls, cls_changed) and torch.equal(tokens, tokens_changed)


def test_keeping_every_token_in_any_order_changes_only_the_order():
    network = tiny()
    volumes = torch.randn(1, 1, 16, 24, 32)
    order = torch.randperm(24)[None]
    with torch.no_grad():
        cls, tokens = network.encode(volumes)
        cls_again, shuffled = network.encode(volumes, order)
    torch.testing.assert_close(cls_again, cls, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shuffled, tokens[:, order[0]], rtol=1e-4, atol=1e-5)


def test_moving_content_changes_the_class_token_because_positions_are_there():
    network = tiny()
    volumes = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert not torch.allclose(network.encode(volumes)[0], network.encode(volumes.flip(2))[0], atol=1e-4)


def test_the_decoder_puts_tokens_at_their_places_and_mask_tokens_elsewhere():
    network = tiny()
    decoder, grid = network.decoder, (2, 3, 2)
    decoder.blocks = torch.nn.ModuleList()  # what is left is local: every place shows what was put there
    tokens, keep = torch.randn(1, 4, 192), torch.tensor([[7, 0, 11, 3]])
    places = decoder.mask_token.expand(1, 12, -1).clone()
    places[0, keep[0]] = decoder.embed(tokens)[0]
    expected = decoder.pred(decoder.norm(places + position_table(grid, 96, CPU)))
    torch.testing.assert_close(network.decode(tokens, keep, grid), expected)


def test_the_decoder_lets_a_class_token_take_part_and_drops_it():
    network = tiny(decoder_class_token=True)
    volumes = torch.randn(2, 1, 16, 16, 16)
    with torch.no_grad():
        cls, tokens = network.encode(volumes)
        first, second = (network.decode(tokens, None, (2, 2, 2), cls=one) for one in (cls, cls.flip(0)))
    assert first.shape == second.shape == (2, 8, 512) and not torch.allclose(first, second)


def test_the_loss_is_the_mean_square_over_dropped_tokens():
    network = tiny(channels=2)
    volumes, keep = torch.rand(2, 2, 16, 16, 24), torch.tensor([[0, 5, 7], [11, 1, 2]])
    prediction = torch.rand(2, 12, 1024)
    dropped = torch.ones(2, 12, dtype=torch.bool).scatter(1, keep, False)
    expected = ((prediction - network.patchify(volumes)) ** 2)[dropped].mean()
    torch.testing.assert_close(network.masked_loss(prediction, volumes, keep), expected)


def test_a_training_step_reaches_every_parameter():
    network = tiny().train()
    volumes, keep = torch.rand(2, 1, 32, 32, 32), torch.stack([torch.randperm(64)[:16] for _ in range(2)])
    cls, prediction = network(volumes, keep)
    (network.masked_loss(prediction, volumes, keep) + cls.square().mean()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_encoding_and_decoding_run_under_autocast(dtype):
    network = tiny()
    volumes, keep = torch.rand(1, 1, 16, 24, 16), torch.tensor([[0, 5, 7]])
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        cls, tokens = network.encode(volumes, keep)
        half = network.decode(tokens, keep, (2, 3, 2), cls=cls)
        loss = network.masked_loss(half, volumes, keep)
    with torch.no_grad():
        cls, tokens = network.encode(volumes, keep)
        torch.testing.assert_close(half.float(), network.decode(tokens, keep, (2, 3, 2), cls=cls), atol=0.1, rtol=0.1)
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_features_are_one_map_on_the_true_grid_for_any_size():
    network = tiny()
    with torch.no_grad():
        features = network.features(torch.randn(1, 1, 17, 24, 40))
        tokens = network.encode(torch.nn.functional.pad(torch.zeros(1, 1, 17, 24, 40), (0, 0, 0, 0, 0, 7)))[1]
    assert len(features) == 1 and features[0].shape == (1, 192, 3, 3, 5) and tokens.shape == (1, 45, 192)


def test_a_size_that_the_patch_does_not_divide_is_refused_not_truncated():
    with pytest.raises(BadInput, match=r"multiples of \(8, 8, 8\)"):
        tiny().encode(torch.randn(1, 1, 16, 20, 16))


def test_the_classifier_averages_normed_tokens_of_any_size():
    network = build_network(architecture_for("gl-mae", "tiny", "classification", 1, 3)).eval()
    volumes = torch.randn(2, 1, 16, 24, 24)
    with torch.no_grad():
        expected = network.head(network.encoder.features(volumes)[0].mean((2, 3, 4)))
        torch.testing.assert_close(network(volumes), expected)
        assert network(torch.randn(1, 1, 13, 30, 9)).shape == (1, 3)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_classifier_may_take_the_class_token_and_a_deeper_head(head):
    architecture = architecture_for("gl-mae", "tiny", "classification", 1, 3)
    architecture["arguments"] |= {"pool": "cls", "head": head}
    network = build_network(architecture)
    volumes = torch.randn(2, 1, 16, 24, 16)
    layers = [module for module in network.head.modules() if isinstance(module, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == ([192, 192, 3] if head == "mlp" else [3])
    torch.testing.assert_close(network(volumes), network.head(network.encoder(volumes)[0]))
    network(volumes).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
