"""The decoder of the hybrid networks: it reconstructs in pretraining and segments in finetuning, with equal weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmae.networks.hybrid import VisibleBlock
from medmae.networks.layers import initialise
from medmae.networks.vit import Grid, VitBlock, as_map, position_table


class JoinBlock(nn.Module):
    """Double the coarse map, add the skip, and mix both."""

    def __init__(self, *, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(channels_in, channels_out, kernel_size=2, stride=2)
        self.mix = VisibleBlock(channels_in=channels_out, channels_out=channels_out)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, channels_in, *grid) and (B, channels_out, *2 grid) -> (B, channels_out, *2 grid)."""
        return self.mix(self.up(coarse) + skip)


class MaskTokens(nn.Module):
    """What stands where patches are hidden: a token, and a vector for each level of the stem."""

    def __init__(self, *, stem_widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.levels = nn.ParameterList(nn.Parameter(torch.empty(1, size, 1, 1, 1)) for size in stem_widths)
        for vector in self.parameters():
            nn.init.normal_(vector, std=0.02)

    def fill(self, tokens: Tensor, skips: Sequence[Tensor], keep: Tensor, visible: Sequence[Tensor],
             grid: Grid) -> tuple[Tensor, list[Tensor]]:
        """Tokens (B, n, width) of the places `keep` and skips that are zero where not `visible`, to all places."""
        places = self.token.to(tokens.dtype).expand(len(keep), grid[0] * grid[1] * grid[2], -1)
        places = places.scatter(1, keep[..., None].expand_as(tokens), tokens)
        return places, [skip + (vector * (1 - seen)).to(skip.dtype)
                        for skip, vector, seen in zip(skips, self.levels, visible, strict=True)]


class HybridDecoder(nn.Module):
    """Transformer blocks over all places, then a U-Net's way up to the voxels.

    Args:
        stem_widths, width, heads: those of the encoder.
        depth: number of transformer blocks.
    """

    def __init__(self, *, stem_widths: Sequence[int], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads) for _ in range(depth))
        coarser = [*stem_widths[1:], width]
        self.joins = nn.ModuleList(JoinBlock(channels_in=first, channels_out=second)
                                   for first, second in zip(coarser, stem_widths, strict=True))
        self.apply(initialise)

    def forward(self, tokens: Tensor, skips: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """Tokens of all places (B, N, width) and the stem's maps, finest first, to maps like these, finest first."""
        tokens = tokens + position_table(grid, self.width, tokens.device)
        for block in self.blocks:
            tokens = block(tokens)
        maps = [as_map(tokens, grid)]
        for join, skip in zip(reversed(self.joins), reversed(skips), strict=True):
            maps.append(join(maps[-1], skip))
        return maps[:0:-1]
