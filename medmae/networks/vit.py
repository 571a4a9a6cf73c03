"""The three-dimensional vision transformer of GL-MAE: encoder with token dropping and fixed sin-cos positions.

Source: docs/methods.md. Positions are never weights here: they are computed for the grid at hand, cubic or not,
so that no checkpoint has to be resized and no grid is ever guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.errors import BadInput
from medmae.networks.layers import NORM_EPS, Mlp, initialise, pad_to_multiple

Grid = tuple[int, int, int]


@lru_cache(maxsize=64)
def position_table(grid: Grid, width: int, device: torch.device, class_token: bool = False) -> Tensor:
    """Fixed 3-D sin-cos positions (tokens, width) of a grid (k, j, i), in fp32.

    Thirds of the channels encode axis k, j, i in that order; in a third the first half is sin, the second cos, with
    frequencies 10000 ** (-n / (width / 6)) at integer positions from 0 (docs/methods.md). With `class_token` a row of
    zeros comes first.
    """
    with torch.inference_mode(False):
        frequencies = 10000.0 ** (-torch.arange(width // 6, dtype=torch.float64) / (width / 6))
        axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
        parts = []
        for axis in axes:
            angles = axis.flatten()[:, None] * frequencies
            parts += [angles.sin(), angles.cos()]
        table = torch.cat(parts, dim=1).float()
        if class_token:
            table = torch.cat([torch.zeros(1, width), table])
        return table.to(device)


def patchify(volumes: Tensor, patch: int) -> Tensor:
    """(B, C, k, j, i) to (B, tokens, patch**3 * C); in a patch (k, j, i, channel), channel fastest."""
    batch, channels, *size = volumes.shape
    k, j, i = (side // patch for side in size)
    cut = volumes.reshape(batch, channels, k, patch, j, patch, i, patch)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, k * j * i, -1)


def unpatchify(patches: Tensor, patch: int, grid: Sequence[int]) -> Tensor:
    """(B, tokens, patch**3 * C) to (B, C, k, j, i); undoes `patchify`."""
    cut = patches.view(patches.shape[0], *grid, patch, patch, patch, -1)
    cut = cut.permute(0, 7, 1, 4, 2, 5, 3, 6)
    return cut.reshape(patches.shape[0], -1, *(side * patch for side in grid))


def gather_tokens(tokens: Tensor, keep: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by index `keep` (B, n) -> (B, n, C)."""
    return tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that heads or 3-D sin-cos positions cannot divide (``ValueError``)."""
    if width % heads or width % 6:
        raise ValueError(f"a width of {width} is not divisible by {heads} heads and by 6 (three sin-cos axes)")


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        batch, count, width = tokens.shape
        query, key, value = self.qkv(tokens).view(
            batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class VitBlock(nn.Module):
    """Pre-norm attention and perceptron, both residual."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width=width, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width=width, hidden=int(width * mlp_ratio))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbed3d(nn.Module):
    """Cubic patches to tokens. The weight has the shape of a strided convolution, and gives its result.

    It is applied as a matrix product to patches that were cut out before, so that dropped tokens cost nothing.
    """

    def __init__(self, *, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.data.view(width, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, n, patch**3 * C) of `patchify` to tokens (B, n, width)."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return functional.linear(patches, weight, self.proj.bias)


class VitEncoder(nn.Module):
    """ViT over the cubic patches of a volume.

    Args:
        channels: channels of the volume.
        patch: side of a patch in voxels.
        width: channels of a token; divisible by `heads` and by 6.
        depth: number of blocks.
        heads: attention heads.
        class_token: whether a CLS token goes first (pretraining has one, UNETR and the classifier do not).
    """

    def __init__(self, *, channels: int, patch: int, width: int, depth: int, heads: int,
                 class_token: bool = True) -> None:
        super().__init__()
        check_heads(width, heads)
        self.patch, self.width = patch, width
        self.patch_embed = PatchEmbed3d(channels=channels, patch=patch, width=width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.apply(initialise)
        if self.cls_token is not None:
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

    def forward(self, volumes: Tensor, keep: Tensor | None = None,
                hidden_after: Sequence[int] = ()) -> tuple[Tensor | None, Tensor, list[Tensor]]:
        """Encode volumes, all tokens or only the kept ones.

        Args:
            volumes: (B, C, k, j, i), sides multiples of the patch.
            keep: (B, n) indices of the tokens to encode; the others never enter the network.
            hidden_after: numbers of blocks, counted from 1, whose output is wanted too.

        Returns:
            CLS (B, width) or None, tokens (B, n, width), both after the final norm, and the hidden tokens (B, n, width)
            after the blocks of `hidden_after`, in ascending order, without CLS and before any norm.
        """
        grid = self.grid(volumes.shape[2:])
        patches, positions = patchify(volumes, self.patch), position_table(grid, self.width, volumes.device)[None]
        if keep is not None:
            patches = gather_tokens(patches, keep)
            positions = gather_tokens(positions.expand(len(keep), -1, -1), keep)
        tokens = self.patch_embed(patches) + positions
        leading = 0
        if self.cls_token is not None:  # the position of CLS is zero
            tokens = torch.cat([self.cls_token.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)
            leading = 1
        hidden = []
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if number in hidden_after:
                hidden.append(tokens[:, leading:])
        tokens = self.norm(tokens)
        return (tokens[:, 0] if leading else None), tokens[:, leading:], hidden

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        padded = pad_to_multiple(volumes, self.patch)
        return [as_map(self(padded)[1], self.grid(padded.shape[2:]))]


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens (B, N, C) to a map (B, C, *grid)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
