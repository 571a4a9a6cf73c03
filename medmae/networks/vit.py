"""The three-dimensional vision transformer of GL-MAE: encoder with token dropping and fixed positions.

Source: docs/methods.md. Positions are not trained. Without a `position_grid` they are sin-cos, computed for the grid at
hand, cubic or not. A network with a `position_grid` (imported weights) brings a table that belongs to this grid, and
resizes it where the grid at hand is another; no grid is ever guessed from a number of tokens.
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
Patch = int | Sequence[int]  # one side for all axes, or the sides (k, j, i)


def three_sides(sides: Patch, what: str = "patch") -> Grid:
    """One int or three as (k, j, i); ``ValueError`` where they are not positive."""
    found = (sides,) * 3 if isinstance(sides, int) else tuple(sides)
    if len(found) != 3 or min(found) < 1:
        raise ValueError(f"{what} must be one or three positive numbers (k, j, i), not {sides!r}")
    return found


@lru_cache(maxsize=64)
def position_table(grid: Grid, width: int, device: torch.device, class_token: bool = False) -> Tensor:
    """Fixed 3-D sin-cos positions (tokens, width) of a grid (k, j, i), in fp32.

    Thirds of the channels encode axis k, j, i in that order; in a third the first half is sin, the second cos, with
    frequencies 10000 ** (-n / (width / 6)) at integer positions from 0 (docs/methods.md). With `class_token` a row of
    zeros comes first.
    """
    cpu = torch.device("cpu")
    with torch.inference_mode(False):
        frequencies = 10000.0 ** (-torch.arange(width // 6, dtype=torch.float64, device=cpu) / (width / 6))
        axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64, device=cpu) for size in grid), indexing="ij")
        parts = []
        for axis in axes:
            angles = axis.flatten()[:, None] * frequencies
            parts += [angles.sin(), angles.cos()]
        table = torch.cat(parts, dim=1).float()
        return functional.pad(table, (0, 0, 1, 0)).to(device) if class_token else table.to(device)


def stored_positions(grid: Grid, width: int, class_token: bool = False) -> Tensor:
    """The table (tokens, width) that a network with a `position_grid` starts from, until weights replace it.

    Sin-cos positions; channels that 6 does not divide (some published decoders are 512 wide) begin as zeros. On the
    meta device, where networks are built to learn their shapes, nothing is computed.
    """
    table = torch.zeros(class_token + grid[0] * grid[1] * grid[2], width)
    if table.is_meta:
        return table
    sin_cos = position_table(grid, width - width % 6, torch.device("cpu"), class_token)
    table[:, :sin_cos.shape[1]].copy_(sin_cos)
    return table


def resized_positions(table: Tensor, grid: Grid, wanted: Grid) -> Tensor:
    """A table (tokens, width) of `grid` for the grid `wanted`: trilinear, corners not aligned; the same table if equal.

    A row of the CLS token before the others is kept as it is.
    """
    if grid == wanted:
        return table
    leading = len(table) - grid[0] * grid[1] * grid[2]
    with torch.autocast(table.device.type, enabled=False):
        image = table[leading:].T.reshape(1, -1, *grid)
        resized = functional.interpolate(image, size=wanted, mode="trilinear", align_corners=False)
        return torch.cat([table[:leading], resized[0].flatten(1).T])


def patchify(volumes: Tensor, patch: Patch) -> Tensor:
    """(B, C, k, j, i) to (B, tokens, voxels of a patch * C); in a patch (k, j, i, channel), channel fastest."""
    batch, channels, *size = volumes.shape
    (depth, rows, columns), (k, j, i) = three_sides(patch), size
    cut = volumes.reshape(batch, channels, k // depth, depth, j // rows, rows, i // columns, columns)
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)


def unpatchify(patches: Tensor, patch: Patch, grid: Sequence[int]) -> Tensor:
    """(B, tokens, voxels of a patch * C) to (B, C, k, j, i); undoes `patchify`."""
    cut = patches.view(patches.shape[0], *grid, *three_sides(patch), -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return cut.flatten(6).flatten(4, 5).flatten(2, 3)


def gather_tokens(tokens: Tensor, keep: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by index `keep` (B, n) -> (B, n, C)."""
    return tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))


def check_heads(width: int, heads: int, positions_computed: bool = True) -> None:
    """Refuse a width that heads, or 3-D sin-cos positions where they are computed, cannot divide (``ValueError``)."""
    if width % heads or (positions_computed and width % 6):
        sixths = " and by 6 (three sin-cos axes)" if positions_computed else ""
        raise ValueError(f"a width of {width} is not divisible by {heads} heads{sixths}")


class Positions(nn.Module):
    """Base of encoder and decoder: fixed positions, computed or from a stored table.

    Attributes:
        position_grid: the grid (k, j, i) of the stored table, or None where positions are computed.
        position_table: the stored table (tokens, width), or (1 + tokens, width) with a row for CLS first; or None.
    """

    position_table: Tensor | None

    def __init__(self, *, width: int, heads: int, position_grid: Sequence[int] | None, class_row: bool) -> None:
        super().__init__()
        check_heads(width, heads, positions_computed=position_grid is None)
        self.width, self.class_row = width, class_row
        self.position_grid = None if position_grid is None else three_sides(position_grid, "position_grid")
        table = None if self.position_grid is None else stored_positions(self.position_grid, width, class_row)
        self.register_buffer("position_table", table)

    def positions(self, grid: Grid, device: torch.device) -> Tensor:
        """Positions of `grid`, shaped as `position_table`, in fp32."""
        if self.position_table is None or self.position_grid is None:
            return position_table(grid, self.width, device, self.class_row)
        return resized_positions(self.position_table, self.position_grid, grid)


MOST_WRITTEN_OUT = 1024  # tokens; above, the scores kept for the backward pass would need more memory than all else


def _written_out_is_faster(query: Tensor) -> bool:
    """Whether to write attention out as two products and a softmax: where a processor trains in bf16.

    Forward and backward on one core with AVX512-bf16 (Testing/benchmarks/gl_mae_pretraining.py --parts attention): 217
    tokens of 12 heads of 64, 4 samples: 47 ms written out, 85 ms fused; in fp32 82 and 72 ms, so that fp32 stays fused.
    """
    return (query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
            and query.shape[2] <= MOST_WRITTEN_OUT)


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
        if _written_out_is_faster(query):
            attended = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        else:
            attended = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class VitBlock(nn.Module):
    """Pre-norm attention and perceptron, both residual."""

    def __init__(self, *, width: int, heads: int, mlp_width: int | None = None, norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width=width, heads=heads)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width=width, hidden=mlp_width or 4 * width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbed3d(nn.Module):
    """Patches to tokens. The weight has the shape of a strided convolution, and gives its result.

    It is applied as a matrix product to patches that were cut out before, so that dropped tokens cost nothing.
    """

    def __init__(self, *, channels: int, patch: Grid, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)
        nn.init.xavier_uniform_(self.proj.weight.data.view(width, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (B, n, voxels * C) of `patchify` to tokens (B, n, width)."""
        weight = self.proj.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return functional.linear(patches, weight, self.proj.bias)


class VitEncoder(Positions):
    """ViT over the patches of a volume.

    Args:
        channels: channels of the volume.
        patch: sides of a patch in voxels, one number or (k, j, i); kept as three.
        width: channels of a token; divisible by `heads`, and by 6 where positions are computed.
        depth: number of blocks.
        heads: attention heads.
        class_token: whether a CLS token goes first (pretraining has one, UNETR has none).
        position_grid: the grid of a stored position table; None computes sin-cos positions.
        mlp_width: of the perceptrons; None = four times the width. norm_eps: of the norms; other libraries use 1e-5.
    """

    def __init__(self, *, channels: int, patch: Patch, width: int, depth: int, heads: int,
                 class_token: bool = True, position_grid: Sequence[int] | None = None, mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__(width=width, heads=heads, position_grid=position_grid, class_row=False)
        self.patch = three_sides(patch)
        self.patch_embed = PatchEmbed3d(channels=channels, patch=self.patch, width=width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width)) if class_token else None
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads, mlp_width=mlp_width, norm_eps=norm_eps)
                                    for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.apply(initialise)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    def grid(self, size: Sequence[int]) -> Grid:
        """Tokens (k, j, i) of a volume of `size` voxels.

        Raises:
            BadInput: a side is not a multiple of the patch.
        """
        if any(side % part for side, part in zip(size, self.patch, strict=True)):
            raise BadInput(f"The network cuts volumes into patches of {self.patch} voxels, but was given "
                           f"{tuple(size)} voxels. Choose sides that are multiples of {self.patch}.")
        k, j, i = (side // part for side, part in zip(size, self.patch, strict=True))
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
        patches, positions = patchify(volumes, self.patch), self.positions(grid, volumes.device)[None]
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
