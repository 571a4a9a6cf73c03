"""Window attention, blocks, merging and expanding, against slow references that work in image coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from medmae.networks.swin import (
    PatchExpanding,
    PatchMerging,
    SwinBlock,
    WindowAttention,
    attention_mask,
    window_partition,
)


def slow_attention(block: SwinBlock, image_map: Tensor) -> Tensor:
    """Shifted-window attention of one map (rows, cols, C), token by token, without windows, rolls or masks."""
    attention, window, shift = block.attn, block.window, block.shift
    rows, cols, width = image_map.shape
    heads, size = attention.heads, width // attention.heads
    padded = [length + -length % window for length in (rows, cols)]
    query, key, value = attention.qkv(image_map).split(width, dim=-1)
    table = attention.relative_position_bias_table

    def cell(place: int, length: int) -> tuple[int, bool]:
        return (place - shift) % length // window, place < shift  # which window, and whether it wrapped around

    places = [(row, col) for row in range(rows) for col in range(cols)]
    result = torch.zeros_like(image_map)
    for row, col in places:
        seen = [(r, c) for r, c in places if cell(r, padded[0]) == cell(row, padded[0])
                and cell(c, padded[1]) == cell(col, padded[1])]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            logits = torch.stack([
                query[row, col, part] @ key[r, c, part] / math.sqrt(size)
                + table[(row - r + window - 1) * (2 * window - 1) + col - c + window - 1, head] for r, c in seen])
            result[row, col, part] = logits.softmax(0) @ torch.stack([value[r, c, part] for r, c in seen])
    return attention.proj(result)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(6, 9), (3, 3), (7, 5), (2, 4)], ids=str)
def test_window_attention_equals_a_slow_reference_for_any_size_and_shift(size, shifted):
    torch.manual_seed(0)
    block = SwinBlock(width=8, heads=2, window=3, shifted=shifted, drop_path=0.0).double()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    image_map = torch.randn(2, *size, 8, dtype=torch.float64)
    expected = torch.stack([slow_attention(block, one) for one in image_map])
    torch.testing.assert_close(block._attend(image_map), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", [(6, 9), (7, 5), (2, 4)], ids=str)
def test_unmasked_padding_takes_part_in_the_attention_as_zeros(size, shifted):
    torch.manual_seed(0)
    block = SwinBlock(width=8, heads=2, window=3, shifted=shifted, drop_path=0.0, masked_padding=False).double()
    torch.nn.init.normal_(block.attn.relative_position_bias_table)
    rows, cols = size
    image_map = torch.randn(1, rows, cols, 8, dtype=torch.float64)
    padded = torch.zeros(rows + -rows % 3, cols + -cols % 3, 8, dtype=torch.float64)
    padded[:rows, :cols] = image_map[0]
    torch.testing.assert_close(block._attend(image_map)[0], slow_attention(block, padded)[:rows, :cols],
                               rtol=1e-10, atol=1e-10)


@given(window=st.integers(1, 5), rows=st.integers(1, 4), cols=st.integers(1, 4), batch=st.integers(1, 3))
def test_windows_are_cut_row_by_row(window, rows, cols, batch):
    image_map = torch.arange(batch * rows * cols * window**2 * 2.0).view(batch, rows * window, cols * window, 2)
    windows = window_partition(image_map, window)
    assert windows.shape == (batch, rows * cols, window**2, 2)
    for row in range(rows):
        for col in range(cols):
            part = image_map[:, row * window:(row + 1) * window, col * window:(col + 1) * window]
            assert torch.equal(windows[:, row * cols + col], part.flatten(1, 2))


def test_the_only_window_of_the_last_stage_is_shifted_too():
    mask = attention_mask(7, 7, 7, 3, torch.device("cpu"))
    assert mask is not None and mask.shape == (1, 49, 49)
    seen_by = (mask[0] == 0).sum(1)
    assert sorted(set(seen_by.tolist())) == [9, 12, 16]  # corners 3x3, 3x4, 4x4 of the rolled map
    block = SwinBlock(width=8, heads=2, window=7, shifted=True, drop_path=0.0)
    image_map = torch.randn(1, 7, 7, 8)
    changed = image_map.clone()
    changed[0, 0, 0] += 1.0
    difference = (block._attend(changed) - block._attend(image_map)).abs().amax(-1)[0]
    assert torch.all(difference[:3, :3] > 0) and torch.all(difference[3:] == 0) and torch.all(difference[:, 3:] == 0)


def test_no_mask_is_made_where_every_token_sees_its_window():
    assert attention_mask(14, 7, 7, 0, torch.device("cpu")) is None
    assert attention_mask(14, 6, 7, 0, torch.device("cpu")) is not None


def test_masks_are_made_once_for_each_size():
    device = torch.device("cpu")
    assert attention_mask(14, 14, 7, 3, device) is attention_mask(14, 14, 7, 3, device)


def test_a_mask_made_during_inference_serves_training_too():
    attention_mask.cache_clear()
    block = SwinBlock(width=8, heads=2, window=3, shifted=True, drop_path=0.0)
    with torch.inference_mode():
        block(torch.randn(1, 6, 6, 8))
    block(torch.randn(1, 6, 6, 8)).sum().backward()
    assert block.attn.relative_position_bias_table.grad is not None


def test_padding_never_reaches_real_tokens():
    torch.manual_seed(0)
    attention = WindowAttention(width=4, heads=1, window=3)
    mask = attention_mask(3, 2, 3, 0, torch.device("cpu"))
    image_map = torch.randn(1, 3, 3, 4)
    other = image_map.clone()
    other[:, :, 2] = 100.0  # the padded column
    assert torch.equal(attention(image_map, mask)[:, :, :2], attention(other, mask)[:, :, :2])


def test_merging_joins_neighbours_column_by_column():
    merging = PatchMerging(width=1)
    merging.norm = torch.nn.Identity()
    merging.reduction = torch.nn.Identity()
    image_map = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])[None, :, :, None]
    assert merging(image_map)[0, 0].tolist() == [[0, 3, 1, 4], [2, 5, 0, 0]]


def test_expanding_spreads_channels_over_rows_then_columns():
    expanding = PatchExpanding(width=4, width_out=1)
    expanding.expand = torch.nn.Identity()
    expanding.norm = torch.nn.Identity()
    image_map = torch.arange(8.0).view(1, 1, 2, 4)
    assert expanding(image_map)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_block_runs_under_autocast_close_to_full_precision(dtype):
    torch.manual_seed(0)
    block = SwinBlock(width=32, heads=2, window=3, shifted=True, drop_path=0.0)
    image_map = torch.randn(2, 7, 8, 32)
    with torch.autocast("cpu", dtype=dtype):
        half = block(image_map)
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half.float(), block(image_map), atol=0.05, rtol=0.05)
