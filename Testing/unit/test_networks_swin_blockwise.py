"""Encoding visible blocks only: the dense network where all are visible, and nothing seen that is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medmae.networks.swin import SwinBlock, windows_attention
from medmae.networks.swin_blockwise import _Lookup, run_blocks, scatter_blocks
from medmae.networks.swin_mae import SwinMAE
from medmae.networks.visible_plan import VisiblePlan, blockwise_sides, visible_plan
from medmae.networks.window_packing import pack

# (depths, heads, image size): one like `tiny`, one like `base`, one whose maps are no multiples of the window
NETWORKS = {"three stages": ((2, 2, 2), (1, 2, 4), 112), "four stages": ((2, 2, 2, 2), (1, 2, 2, 4), 224),
            "odd maps": ((1, 2, 2), (1, 2, 4), 96)}


def network(name: str, channels: int = 1) -> tuple[SwinMAE, int]:
    depths, heads, size = NETWORKS[name]
    torch.manual_seed(0)
    built = SwinMAE(channels=channels, width=8, depths=depths, heads=heads, window=7)
    for parameter in built.parameters():  # biases and norms away from their tidy beginnings
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return built.eval(), size


def masks(blocks: int, batch: int, hidden: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mask = np.zeros((batch, blocks * blocks), bool)
    for row in mask:
        row[generator.permutation(blocks * blocks)[:hidden]] = True
    return mask.reshape(batch, blocks, blocks)


def plan_for(net: SwinMAE, mask: np.ndarray) -> VisiblePlan:
    return visible_plan(mask, stages=len(net.encoder.depths), window=net.encoder.window, mask_block=net.mask_block)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_every_block_visible_it_is_the_dense_network(name: str) -> None:
    net, size = network(name, channels=2)
    images = torch.rand(2, 2, size, size)
    nothing = np.zeros((2, size // 16, size // 16), bool)
    dense = net(images, torch.from_numpy(nothing))
    assert torch.allclose(net(images, torch.from_numpy(nothing), plan_for(net, nothing)), dense, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_hidden_pixels_change_no_prediction_and_visible_ones_change_all(name: str) -> None:
    net, size = network(name)
    blocks = size // 16
    mask = masks(blocks, 2, round(0.75 * blocks * blocks))
    plan, hidden_blocks = plan_for(net, mask), torch.from_numpy(mask)
    images = torch.rand(2, 1, size, size)
    hidden = torch.from_numpy(mask.repeat(16, 1).repeat(16, 2))[:, None]
    prediction = net(images, hidden_blocks, plan)
    others = torch.where(hidden, torch.rand_like(images), images)
    assert torch.equal(net(others, hidden_blocks, plan), prediction)
    changed = net(torch.where(hidden, images, 1 - images), hidden_blocks, plan)
    assert ((changed - prediction).abs().amax(-1) > 1e-6).all()


def test_the_tokens_of_a_subset_attend_as_if_the_others_were_masked() -> None:
    """Against a slow reference: attention over the whole map with -inf for every pair that may not meet."""
    torch.manual_seed(1)
    side, window = 12, 5
    block = SwinBlock(width=16, heads=2, window=window, shifted=True, drop_path=0.0).eval()
    tokens = torch.randn(1, side * side, 16)
    chosen = np.sort(np.random.default_rng(2).permutation(side * side)[:60])
    rows, cols = chosen[None] // side, chosen[None] % side
    found = run_blocks([block], tokens[:, chosen], pack(rows, cols, window, 0), pack(rows, cols, window, window // 2))
    assert torch.allclose(found, _slow_block(block, tokens[:, chosen], rows[0], cols[0]), atol=1e-5)


def _slow_block(block: SwinBlock, tokens: torch.Tensor, rows: np.ndarray, cols: np.ndarray) -> torch.Tensor:
    window, shift, attention = block.window, block.shift, block.attn
    count, width = tokens.shape[1], tokens.shape[2]
    qkv = attention.qkv(block.norm1(tokens))[0].view(count, 3, attention.heads, -1)
    attended = torch.zeros(count, attention.heads, width // attention.heads)
    for head in range(attention.heads):
        for query in range(count):
            scores, values = [], []
            for key in range(count):
                same = all((axis[query] - shift) // window == (axis[key] - shift) // window for axis in (rows, cols))
                if not same:
                    continue
                row = (rows[query] - rows[key] + window - 1) * (2 * window - 1) + cols[query] - cols[key] + window - 1
                score = qkv[query, 0, head] @ qkv[key, 1, head] / (width // attention.heads) ** 0.5
                scores.append(score + attention.relative_position_bias_table[row, head])
                values.append(qkv[key, 2, head])
            attended[query, head] = torch.stack(scores).softmax(0) @ torch.stack(values)
    after = tokens + attention.proj(attended.flatten(1))[None]
    return after + block.mlp(block.norm2(after))


def test_looking_up_has_the_gradient_of_indexing() -> None:
    index = torch.randint(0, 7, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    table = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    (table[index] * weights).sum().backward()
    assert table.grad is not None
    expected, table.grad = table.grad.clone(), None
    found = _Lookup.apply(table, index.int())
    assert torch.equal(found, table[index])
    (found * weights).sum().backward()
    assert torch.allclose(table.grad, expected, atol=1e-5)


def test_attention_written_out_is_the_fused_one() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 9, 4) for _ in range(3))
    bias = torch.randn(1, 2, 9, 9).masked_fill(torch.rand(1, 2, 9, 9) < 0.3, float("-inf"))
    bias.diagonal(dim1=-2, dim2=-1).zero_()
    written_out = windows_attention(query, key, value, bias)
    with torch.no_grad():
        fused = windows_attention(query, key, value, bias)
    assert torch.allclose(written_out, fused, atol=1e-6)


def test_chosen_blocks_come_to_their_places_and_the_gaps_are_filled() -> None:
    chosen = torch.tensor([[0, 5]])
    tokens = torch.arange(2 * 4).view(1, 8, 1).float()  # two blocks of 2 x 2 tokens
    whole = scatter_blocks(tokens, chosen, (2, 3), torch.tensor([-1.0]))
    expected = [[0, 1, -1, -1, -1, -1], [2, 3, -1, -1, -1, -1], [-1, -1, -1, -1, 4, 5], [-1, -1, -1, -1, 6, 7]]
    assert torch.equal(whole[0, :, :, 0], torch.tensor(expected).float())


def test_blocks_end_where_neighbours_merge_and_before_the_coarsest_stage() -> None:
    assert blockwise_sides(4, 4) == (4, 2, 1)
    assert blockwise_sides(3, 4) == (4, 2)
    assert blockwise_sides(4, 8) == (8, 4, 2)
    assert blockwise_sides(2, 1) == (1,)


def test_uneven_masks_are_refused() -> None:
    mask = masks(7, 2, 30)
    mask[1, 0, 0] = not mask[1, 0, 0]
    with pytest.raises(ValueError, match="same number of visible blocks"):
        visible_plan(mask, stages=3, window=7, mask_block=4)
    with pytest.raises(ValueError, match="visible"):
        visible_plan(np.ones((2, 7, 7), bool), stages=3, window=7, mask_block=4)


def test_gradients_reach_every_parameter() -> None:
    net, size = network("four stages")
    net.train()
    mask, images = masks(size // 16, 1, 147), torch.rand(1, 1, size, size)
    prediction = net(images, torch.from_numpy(mask), plan_for(net, mask))
    net.masked_loss(prediction, images, torch.from_numpy(mask)).backward()
    missing = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(torch.isfinite(parameter.grad).all() for parameter in net.parameters() if parameter.grad is not None)
