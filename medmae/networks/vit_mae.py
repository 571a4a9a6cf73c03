"""GL-MAE's backbone with its reconstruction decoder (docs/methods.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS, initialise
from medmae.networks.patch_reconstruction import PatchReconstruction
from medmae.networks.vit import (
    Grid,
    Patch,
    Positions,
    VitBlock,
    VitEncoder,
    gather_tokens,
    three_sides,
)


class VitDecoder(Positions):
    """Puts mask tokens where tokens were dropped and predicts the voxels of patches."""

    def __init__(self, *, encoder_width: int, width: int, depth: int, heads: int, values: int,
                 class_token: bool = False, position_grid: Sequence[int] | None = None, mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__(width=width, heads=heads, position_grid=position_grid, class_row=class_token)
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads, mlp_width=mlp_width, norm_eps=norm_eps)
                                    for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.pred = nn.Linear(width, values)
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, keep: Tensor | None, grid: Grid, cls: Tensor | None = None,
                wanted: Tensor | None = None) -> Tensor:
        """Predict patches of `grid`.

        Args:
            tokens: (B, n, encoder width).
            keep: (B, n) the places of these tokens; None = all places in order.
            grid: tokens (k, j, i) of the whole volume.
            cls: (B, encoder width), where this decoder was built with a class token.
            wanted: (B, m) the places whose patches are wanted; None = all. The last layer is computed for them only.

        Returns:
            (B, m or N, values).
        """
        places = self.embed(tokens)
        if keep is not None:
            kept = places
            places = self.mask_token.to(kept.dtype).expand(len(kept), grid[0] * grid[1] * grid[2], -1)
            places = places.scatter(1, keep[..., None].expand(-1, -1, self.width), kept)
        if self.class_row:
            assert cls is not None  # VitMae gives it
            places = torch.cat([self.embed(cls)[:, None].to(places.dtype), places], dim=1)
        places = places + self.positions(grid, tokens.device)
        for block in self.blocks:
            places = block(places)
        if self.class_row:
            places = places[:, 1:]
        if wanted is not None:
            places = gather_tokens(places, wanted)
        return self.pred(self.norm(places))


def dropped_places(keep: Tensor, total: int) -> Tensor:
    """The places (B, total - n), ascending, that `keep` (B, n) leaves out; no wait for the device."""
    dropped = torch.ones(keep.shape[0], total, dtype=torch.bool, device=keep.device).scatter(1, keep, False)
    # A stable sort brings the dropped places to the front in their order; how many there are is known from the shapes.
    return dropped.byte().argsort(dim=1, descending=True, stable=True)[:, :total - keep.shape[1]]


class VitMae(PatchReconstruction):
    """ViT encoder with token dropping and a light ViT decoder.

    Args:
        channels: channels of the volume.
        patch, width, depth, heads: see `VitEncoder`.
        decoder_width, decoder_depth, decoder_heads: the decoder; its width is divisible by its heads, and by 6 where
            positions are computed.
        decoder_class_token: whether CLS takes part in the decoder, as in the released class; the published figure shows
            patch tokens only.
        position_grid: the grid of the stored position tables of encoder and decoder; None computes sin-cos positions.
        mlp_width, decoder_mlp_width, norm_eps: see `VitEncoder`.
    """

    def __init__(self, *, channels: int, patch: Patch = 16, width: int = 768, depth: int = 12, heads: int = 12,
                 decoder_width: int = 576, decoder_depth: int = 8, decoder_heads: int = 16,
                 decoder_class_token: bool = False, position_grid: Sequence[int] | None = None,
                 mlp_width: int | None = None, decoder_mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.patch = three_sides(patch)
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  position_grid=position_grid, mlp_width=mlp_width, norm_eps=norm_eps)
        self.decoder = VitDecoder(encoder_width=width, width=decoder_width, depth=decoder_depth, heads=decoder_heads,
                                  values=math.prod(self.patch) * channels, class_token=decoder_class_token,
                                  position_grid=position_grid, mlp_width=decoder_mlp_width, norm_eps=norm_eps)

    def grid(self, size: Sequence[int]) -> Grid:
        """Tokens (k, j, i) of a volume of `size` voxels (``BadInput`` unless multiples of the patch)."""
        return self.encoder.grid(size)

    def encode(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Volumes (B, C, k, j, i) to CLS (B, width) and the tokens `keep` (B, n), or all: (B, n, width)."""
        cls, tokens, _ = self.encoder(volumes, keep)
        assert cls is not None  # this encoder is built with a class token
        return cls, tokens

    def decode(self, tokens: Tensor, keep: Tensor | None, grid: Grid, *, cls: Tensor | None = None) -> Tensor:
        """Predict every patch of `grid`, the kept ones too: (B, N, voxels of a patch * C), as `patchify` orders them.

        Args:
            tokens: (B, n, width) of `encode`.
            keep: (B, n) the places of these tokens; None = all places in order.
            grid: tokens (k, j, i) of the whole volume.
            cls: (B, width) of `encode`; it counts only with `decoder_class_token`.
        """
        return self.decoder(tokens, keep, grid, cls)

    def forward(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode and decode in one call, the interface of pretraining (what DistributedDataParallel wraps).

        Args:
            volumes: (B, C, k, j, i), sides multiples of the patch.
            keep: (B, n) the places that the encoder sees; None = all.

        Returns:
            CLS (B, width) and predictions (B, N, voxels of a patch * C). With `keep`, kept patches are not predicted
            (no loss asks for them) and read zero; `decode` predicts all.
        """
        cls, tokens = self.encode(volumes, keep)
        grid = self.grid(volumes.shape[2:])
        if keep is None:
            return cls, self.decoder(tokens, None, grid, cls)
        wanted = dropped_places(keep, math.prod(grid))
        predicted = self.decoder(tokens, keep, grid, cls, wanted)
        everywhere = predicted.new_zeros(len(predicted), math.prod(grid), predicted.shape[2])
        return cls, everywhere.scatter(1, wanted[..., None].expand_as(predicted), predicted)

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        return self.encoder.features(volumes)
