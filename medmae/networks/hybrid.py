"""The encoder of the hybrid networks: a convolutional stem under GL-MAE's transformer.

Residual convolutions at strides 1, 2, 4, ... turn a volume into tokens of one patch each; the transformer, with CLS,
sees the visible ones only. Nothing of a hidden patch enters: as in sparse convolutions (SparK, arXiv 2301.03580) its
voxels are zero and stay zero after every layer, and the statistics of norms are those of visible places, so that
pretraining and finetuning see features of one distribution. Why there is a stem: docs/results/gl-mae.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.errors import BadInput
from medmae.networks.layers import NORM_EPS, initialise, pad_to_multiple
from medmae.networks.vit import Grid, VitBlock, as_map, check_heads, gather_tokens, position_table

SLOPE, INSTANCE_NORM_EPS = 0.01, 1e-5
MOST_LEVELS = 5  # patches of 32 voxels cubed


class VisibleNorm(nn.Module):
    """Instance norm with the statistics of visible places; hidden ones become zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor, visible: Tensor | None) -> Tensor:
        """(B, C, k, j, i) and where it is visible, (B, 1, k, j, i) of ones and zeros; None = everywhere."""
        if visible is None:
            return functional.instance_norm(maps, weight=self.weight, bias=self.bias, eps=INSTANCE_NORM_EPS)
        with torch.autocast(maps.device.type, enabled=False):
            seen = maps.float() * visible
            count = visible.sum(dim=(2, 3, 4), keepdim=True)
            mean = seen.sum(dim=(2, 3, 4), keepdim=True) / count
            variance = ((seen - mean) * visible).square().sum(dim=(2, 3, 4), keepdim=True) / count
            scale = (variance + INSTANCE_NORM_EPS).rsqrt() * self.weight.view(1, -1, 1, 1, 1)
            shift = self.bias.view(1, -1, 1, 1, 1) - mean * scale
            return ((seen * scale + shift) * visible).to(maps.dtype)


class VisibleBlock(nn.Module):
    """Two 3x3x3 convolutions with a path around them, norms over visible places; the first may halve the grid."""

    def __init__(self, *, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = VisibleNorm(channels_out)
        self.conv2 = nn.Conv3d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.norm2 = VisibleNorm(channels_out)
        changes = channels_in != channels_out or stride != 1
        self.conv3 = nn.Conv3d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False) if changes else None
        self.norm3 = VisibleNorm(channels_out) if changes else None

    def forward(self, maps: Tensor, visible: Tensor | None = None) -> Tensor:
        """(B, channels_in, k, j, i) -> (B, channels_out, ...); `visible` (B, 1, ...) is on the grid of the result."""
        around = maps
        if self.conv3 is not None and self.norm3 is not None:
            around = self.norm3(self.conv3(maps), visible)
        # On processors convolutions with few channels are faster on maps with the channels last
        inner = self.conv1(maps.contiguous(memory_format=torch.channels_last_3d))
        inner = functional.leaky_relu(self.norm1(inner, visible), SLOPE, inplace=True)
        inner = self.norm2(self.conv2(inner), visible)
        return functional.leaky_relu(inner + around, SLOPE, inplace=True)


class HybridStem(nn.Module):
    """Level l has ``widths[l]`` channels at stride 2**l; cells of 2x2x2 of the last level are the patches."""

    def __init__(self, *, channels: int, widths: Sequence[int], width: int) -> None:
        super().__init__()
        before = [channels, *widths[:-1]]
        self.levels = nn.ModuleList(
            VisibleBlock(channels_in=first, channels_out=second, stride=1 if level == 0 else 2)
            for level, (first, second) in enumerate(zip(before, widths, strict=True)))
        self.proj = nn.Conv3d(widths[-1], width, kernel_size=2, stride=2)

    def forward(self, volumes: Tensor, visible: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor]]:
        """(B, C, k, j, i) to tokens of all places (B, N, width) and the maps of the levels, finest first."""
        maps, skips = volumes if visible[0] is None else volumes * visible[0], []
        for block, seen in zip(self.levels, visible, strict=True):
            maps = block(maps, seen)
            skips.append(maps)
        return self.proj(maps).flatten(2).transpose(1, 2), skips


class HybridEncoder(nn.Module):
    """Convolutional stem, then a ViT with CLS over the visible tokens.

    Args:
        channels: channels of the volume.
        stem_widths: channels of the stem's levels, finest first; L levels make patches of 2**L voxels cubed.
        width, depth, heads: see `VitEncoder`.
    """

    def __init__(self, *, channels: int, stem_widths: Sequence[int], width: int, depth: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        if not 1 <= len(stem_widths) <= MOST_LEVELS:
            raise ValueError(f"stem_widths must name 1 to {MOST_LEVELS} levels, not {len(stem_widths)}")
        self.width, self.patch = width, 2 ** len(stem_widths)
        self.patch_embed = HybridStem(channels=channels, widths=stem_widths, width=width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.apply(initialise)
        nn.init.normal_(self.cls_token, std=0.02)

    def grid(self, size: Sequence[int]) -> Grid:
        """Tokens (k, j, i) of a volume of `size` voxels.

        Raises:
            BadInput: a side is not a multiple of the patch.
        """
        if any(side % self.patch for side in size):
            raise BadInput(f"The network cuts volumes into cubes of {self.patch} voxels, but was given "
                           f"{tuple(size)} voxels. Choose sides that are multiples of {self.patch}.")
        k, j, i = (side // self.patch for side in size)
        return k, j, i

    def visible(self, keep: Tensor | None, grid: Grid) -> list[Tensor | None]:
        """Where each level shows the kept places `keep` (B, n): (B, 1, ...) of ones and zeros, finest first."""
        levels = len(self.patch_embed.levels)
        if keep is None:
            return [None] * levels
        tokens = torch.zeros(len(keep), grid[0] * grid[1] * grid[2], device=keep.device).scatter_(1, keep, 1.0)
        coarse = tokens.view(len(keep), 1, *grid)
        return [functional.interpolate(coarse, scale_factor=float(2 ** (levels - level))) for level in range(levels)]

    def forward(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Encode volumes, all of them or only the kept patches.

        Args:
            volumes: (B, C, k, j, i), sides multiples of the patch.
            keep: (B, n) indices of the patches to encode; nothing of the others enters the network.

        Returns:
            CLS (B, width) and tokens (B, n, width), both after the final norm, and the maps of the stem's levels,
            finest first, zero at hidden places.
        """
        grid = self.grid(volumes.shape[2:])
        tokens, skips = self.patch_embed(volumes, self.visible(keep, grid))
        tokens = tokens + position_table(grid, self.width, volumes.device)
        if keep is not None:
            tokens = gather_tokens(tokens, keep)
        tokens = torch.cat([self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, 1:], skips

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        padded = pad_to_multiple(volumes, self.patch)
        return [as_map(self(padded)[1], self.grid(padded.shape[2:]))]
