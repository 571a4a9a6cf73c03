"""Running stages of a Swin encoder on some of the masking blocks of an image only, and leaving the others out.

A masking block is a square of tokens that is hidden or visible as a whole. As long as its tokens are its own (before
merging makes one token of neighbouring blocks), a stage can work on the tokens of chosen blocks alone: its weights, its
(shifted) windows and its relative positions are those of the dense stage, and a token attends to the chosen tokens of
its window. With all blocks chosen the result is that of the dense stage (a test compares them).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from medmae.networks.swin import SwinBlock, windows_attention
from medmae.networks.window_packing import Packing


def run_blocks(blocks: Iterable[nn.Module], tokens: Tensor, plain: Packing, shifted: Packing) -> Tensor:
    """The transformer blocks of a stage on the tokens (B, N, C) that the packings place."""
    rows: dict[bool, Tensor] = {}
    for block in cast("Iterable[SwinBlock]", blocks):
        is_shifted = block.shift > 0
        packing = shifted if is_shifted else plain
        if is_shifted not in rows:
            rows[is_shifted] = packing.bias_rows(block.window)
        attend = partial(_attend, block, packing, rows[is_shifted])
        tokens = block.drop_path(tokens, attend)
        tokens = block.drop_path(tokens, partial(_perceive, block))
    return tokens


def _perceive(block: SwinBlock, tokens: Tensor, samples: Tensor | None) -> Tensor:
    del samples  # tokens are worked on one by one
    return block.mlp(block.norm2(tokens))


def _attend(block: SwinBlock, packing: Packing, bias_rows: Tensor, tokens: Tensor, samples: Tensor | None) -> Tensor:
    """The attention branch for the tokens of some `samples` (None: all) of the batch that was packed."""
    if samples is not None:
        packing, bias_rows = packing.of_samples(samples), bias_rows[samples]
    attention = block.attn
    batch, groups, length = packing.tokens.shape
    heads, table = attention.heads, attention.relative_position_bias_table
    width = tokens.shape[-1]
    packed = _Take.apply(attention.qkv(block.norm1(tokens)), packing.tokens.flatten(1), packing.places, None)
    query, key, value = packed.view(batch * groups, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    with_hidden = torch.cat([table, table.new_full((1, heads), float("-inf"))])
    bias = _Lookup.apply(with_hidden, bias_rows).view(batch * groups, length, length, heads)
    attended = windows_attention(query, key, value, bias.permute(0, 3, 1, 2))
    attended = attended.transpose(1, 2).reshape(batch, groups * length, width)
    return attention.proj(_Take.apply(attended, packing.places, packing.tokens.flatten(1),
                                      packing.windows.flatten(1) >= 0))


class _Take(torch.autograd.Function):
    """tokens (B, n, C) at `index` (B, m) -> (B, m, C), where `back` (B, n) says from where each token was taken.

    What indexing does; but where every token is used once, its gradient needs no sum, only the way back. `used` (B, n)
    is False where a token is not taken at all; its gradient is zero.
    """

    @staticmethod
    def forward(context: Any, tokens: Tensor, index: Tensor, back: Tensor, used: Tensor | None) -> Tensor:
        """Take the tokens."""
        context.save_for_backward(back, used)
        return _rows(tokens, index)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        """Bring the gradients back."""
        back, used = context.saved_tensors
        returned = _rows(gradient, back)
        return (returned if used is None else returned * used[..., None]), None, None, None


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens (B, n, C) at index (B, m) -> (B, m, C)."""
    start = torch.arange(len(index), device=index.device)[:, None] * tokens.shape[1]
    return tokens.flatten(0, 1).index_select(0, (index + start).flatten()).view(*index.shape, tokens.shape[-1])


class _Lookup(torch.autograd.Function):
    """Rows of a table (rows, heads) at an index of any shape -> (*shape, heads).

    What indexing does; its gradient, a sum of very many numbers into very few rows, is five times as fast on a
    processor when it is scattered along the rows of the transposed table.
    """

    @staticmethod
    def forward(context: Any, table: Tensor, index: Tensor) -> Tensor:
        """Look the rows up."""
        context.save_for_backward(index)
        context.rows = table.shape[0]
        return table.index_select(0, index.flatten()).view(*index.shape, table.shape[1])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Sum the gradients of equal rows, in fp32."""
        (index,) = context.saved_tensors
        columns = gradient.reshape(-1, gradient.shape[-1]).T.contiguous().float()
        total = columns.new_zeros(columns.shape[0], context.rows)
        total.scatter_add_(1, index.flatten().long()[None].expand(len(columns), -1), columns)
        return total.T.to(gradient.dtype), None


def per_block(tokens: Tensor, blocks: int) -> Tensor:
    """(B, blocks * side * side, C) as small maps (B * blocks, side, side, C)."""
    side = round((tokens.shape[1] // blocks) ** 0.5)
    return tokens.reshape(tokens.shape[0] * blocks, side, side, tokens.shape[-1])


def per_image(maps: Tensor, batch: int) -> Tensor:
    """The opposite of `per_block`: (B * blocks, side, side, C) as tokens (B, blocks * side * side, C)."""
    return maps.reshape(batch, -1, maps.shape[-1])


def scatter_blocks(tokens: Tensor, chosen: Tensor, grid: tuple[int, int], filling: Tensor) -> Tensor:
    """Put the tokens (B, n * side * side, C) of the chosen blocks (B, n) into a whole map (B, rows, cols, C).

    The other blocks of the grid (block rows, block cols) hold `filling` (C).
    """
    batch, count = chosen.shape
    side = round((tokens.shape[1] // count) ** 0.5)
    images = torch.arange(batch, device=tokens.device)[:, None]
    whole = filling.to(tokens.dtype).expand(batch, grid[0] * grid[1], side * side, -1).clone()
    whole[images, chosen] = tokens.view(batch, count, side * side, -1)
    whole = whole.view(batch, grid[0], grid[1], side, side, -1).transpose(2, 3)
    return whole.reshape(batch, grid[0] * side, grid[1] * side, -1)
