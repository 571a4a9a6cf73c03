"""Parts of the two-dimensional Swin transformer: window attention, blocks, patch merging and patch expanding.

All maps are channels-last, (B, rows, cols, C). Source: docs/methods.md (VIS-MAE's Swin MAE). Two properties differ from
the common Swin implementations on purpose, because imported weights need them: every odd block is shifted, also where
the map is one window, and LayerNorm uses eps 1e-6. One differs from the official code on purpose: where a map is not a
multiple of the window, the padding is hidden from the attention (`masked_padding`). Officially it takes part; imported
weights were trained that way and keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.networks.layers import NORM_EPS, DropPath, Mlp

OFFICIAL_MASK_VALUE = -100.0  # what the official code adds to logits of tokens that were no neighbours


def window_partition(image_map: Tensor, window: int) -> Tensor:
    """Cut (B, rows, cols, C) into (B, windows, window * window, C); rows and cols are multiples of `window`."""
    batch, rows, cols, width = image_map.shape
    cut = image_map.view(batch, rows // window, window, cols // window, window, width)
    return cut.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, window * window, width)


@lru_cache(maxsize=32)
def relative_position_index(window: int, device: torch.device) -> Tensor:
    """For every (query, key) of a window the row of the bias table, flat (window**4,) int64."""
    with torch.inference_mode(False):
        axis = torch.arange(window, device=device)
        rows, cols = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        down = rows[:, None] - rows[None, :] + window - 1
        right = cols[:, None] - cols[None, :] + window - 1
        return (down * (2 * window - 1) + right).flatten()


@lru_cache(maxsize=64)
def attention_mask(rows: int, cols: int, window: int, shift: int, device: torch.device,
                   masked_padding: bool = True) -> Tensor | None:
    """Additive mask (windows, N, N), 0 or -inf, of a map (rows, cols) padded to windows and rolled by -shift.

    Tokens see each other when they were neighbours before the roll and are both real (or both padding, so that no row
    is empty). Without `masked_padding` the mask is the official one: padding counts as real, and -100 stands for -inf.
    None where every token of every window may see every other.
    """
    padded_rows, padded_cols = rows + -rows % window, cols + -cols % window
    if shift == 0 and (not masked_padding or (padded_rows, padded_cols) == (rows, cols)):
        return None
    with torch.inference_mode(False):
        regions = _axis_regions(padded_rows, window, shift)[:, None] * 3 + _axis_regions(padded_cols, window, shift)
        if masked_padding:
            padding = torch.ones(padded_rows, padded_cols, dtype=torch.long)
            padding[:rows, :cols] = 0
            regions = regions + 9 * padding.roll((-shift, -shift), (0, 1))
        regions = window_partition(regions[None, :, :, None], window)[0, :, :, 0]
        hidden = regions[:, :, None] != regions[:, None, :]
        blocked = float("-inf") if masked_padding else OFFICIAL_MASK_VALUE
        return torch.zeros(hidden.shape).masked_fill_(hidden, blocked).to(device)


def _axis_regions(length: int, window: int, shift: int) -> Tensor:
    regions = torch.zeros(length, dtype=torch.long)
    if shift:
        regions[-window:] = 1
        regions[-shift:] = 2
    return regions


def windows_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention with an additive bias: (n, heads, N, C) each, bias (n or 1, heads, N, N) -> (n, heads, N, C).

    ``scaled_dot_product_attention`` where it has a fused kernel. For training on a processor it has none (a bias that
    needs a gradient) and falls back to a form that takes up to three times as long as the two products written out
    (Testing/benchmarks/vis_mae_pretraining.py).
    """
    bias = bias.to(query.dtype)
    if query.device.type == "cpu" and torch.is_grad_enabled():
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return (scores + bias).softmax(-1) @ value
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for every relative position."""

    def __init__(self, *, width: int, heads: int, window: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} is not divisible by {heads} heads")
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def position_bias(self) -> Tensor:
        """The bias (heads, N, N) of every query and key of a window."""
        table, tokens = self.relative_position_bias_table, self.window**2
        return table[relative_position_index(self.window, table.device)].view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(self, image_map: Tensor, mask: Tensor | None) -> Tensor:
        """(B, rows, cols, C), sides multiples of the window -> the same shape.

        `mask` (windows, N, N) is added to the attention logits. With a mask the windows are folded into the heads, so
        that bias and mask broadcast over the batch and the fused kernels of ``scaled_dot_product_attention`` (which
        take four axes) still apply. Queries, keys and values are cut into windows and heads in one copy.
        """
        batch, rows, cols, width = image_map.shape
        side, down, across, each = self.window, rows // self.window, cols // self.window, width // self.heads
        cut = self.qkv(image_map).view(batch, down, side, across, side, 3, self.heads, each)
        query, key, value = cut.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(
            3, batch, down * across, self.heads, side * side, each)
        bias = self.position_bias()[None]
        first, last = (0, 1) if mask is None else (1, 2)
        if mask is not None:
            bias = (bias + mask[:, None]).flatten(0, 1)[None]
        attended = windows_attention(query.flatten(first, last), key.flatten(first, last), value.flatten(first, last),
                                     bias)
        attended = attended.view(batch, down, across, self.heads, side, side, each).permute(0, 1, 4, 2, 5, 3, 6)
        return self.proj(attended.reshape(batch, rows, cols, width))


class SwinBlock(nn.Module):
    """Pre-norm window attention and perceptron, both residual; shifts the windows by half where `shifted`.

    `masked_padding` hides the zeros that fill up windows at the end of a map from the attention.
    """

    def __init__(self, *, width: int, heads: int, window: int, shifted: bool, drop_path: float,
                 mlp_ratio: float = 4.0, masked_padding: bool = True) -> None:
        super().__init__()
        self.window, self.shift, self.masked_padding = window, window // 2 if shifted else 0, masked_padding
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = WindowAttention(width=width, heads=heads, window=window)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width=width, hidden=int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, image_map: Tensor) -> Tensor:
        """(B, rows, cols, C) -> the same shape; any size (padded to windows inside)."""
        image_map = self.drop_path(image_map, lambda some, _: self._attend(self.norm1(some)))
        return self.drop_path(image_map, lambda some, _: self.mlp(self.norm2(some)))

    def _attend(self, image_map: Tensor) -> Tensor:
        _, rows, cols, _ = image_map.shape
        mask = attention_mask(rows, cols, self.window, self.shift, image_map.device, self.masked_padding)
        padded = functional.pad(image_map, (0, 0, 0, -cols % self.window, 0, -rows % self.window))
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
        merged = self.attn(padded, mask)
        if self.shift:
            merged = merged.roll((self.shift, self.shift), (1, 2))
        return merged[:, :rows, :cols]


def swin_blocks(*, width: int, heads: int, window: int, drop_paths: Sequence[float],
                masked_padding: bool = True) -> nn.ModuleList:
    """The blocks of one stage, as many as there are drop rates; every odd one is shifted."""
    return nn.ModuleList(
        SwinBlock(width=width, heads=heads, window=window, shifted=index % 2 == 1, drop_path=rate,
                  masked_padding=masked_padding)
        for index, rate in enumerate(drop_paths))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to normed tokens: (B, C, H, W) -> (B, rows, cols, width)."""

    def __init__(self, *, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images whose sides are multiples of the patch."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Halve a map: (B, rows, cols, C) -> (B, ceil(rows / 2), ceil(cols / 2), 2C); odd sizes are zero-padded.

    The four neighbours are concatenated in the order (row 0 col 0), (1, 0), (0, 1), (1, 1), as in every Swin.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=NORM_EPS)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, image_map: Tensor) -> Tensor:
        """Merge neighbouring tokens two by two."""
        _, rows, cols, _ = image_map.shape
        even = functional.pad(image_map, (0, 0, 0, cols % 2, 0, rows % 2))
        neighbours = [even[:, row::2, col::2] for row, col in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class PatchExpanding(nn.Module):
    """Enlarge a map by `factor`: (B, rows, cols, C) -> (B, factor * rows, factor * cols, width_out)."""

    def __init__(self, *, width: int, width_out: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor * factor * width_out, bias=False)
        self.norm = nn.LayerNorm(width_out, eps=NORM_EPS)

    def forward(self, image_map: Tensor) -> Tensor:
        """Spread the widened channels (row, col, channel) over the finer grid."""
        batch, rows, cols, _ = image_map.shape
        spread = self.expand(image_map).view(batch, rows, cols, self.factor, self.factor, -1)
        spread = spread.transpose(2, 3).reshape(batch, rows * self.factor, cols * self.factor, -1)
        return self.norm(spread)
