"""GL-MAE's backbone with its reconstruction decoder (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS, initialise, masked_mean_squared_error, normalised_patches
from medmae.networks.vit import Grid, VitBlock, VitEncoder, check_heads, patchify, position_table, unpatchify


class VitDecoder(nn.Module):
    """Puts mask tokens where tokens were dropped and predicts the voxels of every patch."""

    def __init__(self, *, encoder_width: int, width: int, depth: int, heads: int, values: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.width = width
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(VitBlock(width=width, heads=heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.pred = nn.Linear(width, values)
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, keep: Tensor | None, grid: Grid, cls: Tensor | None) -> Tensor:
        """Tokens (B, n, encoder width) at the places `keep` (B, n) of `grid` to predictions (B, N, values)."""
        places = self.embed(tokens)
        if keep is not None:
            kept = places
            places = self.mask_token.to(kept.dtype).expand(len(kept), grid[0] * grid[1] * grid[2], -1)
            places = places.scatter(1, keep[..., None].expand(-1, -1, self.width), kept)
        places = places + position_table(grid, self.width, tokens.device)
        if cls is not None:
            places = torch.cat([self.embed(cls)[:, None].to(places.dtype), places], dim=1)
        for block in self.blocks:
            places = block(places)
        places = self.pred(self.norm(places))
        return places if cls is None else places[:, 1:]


class VitMae(nn.Module):
    """ViT encoder with token dropping and a light ViT decoder.

    Args:
        channels: channels of the volume.
        patch, width, depth, heads: see `VitEncoder`.
        decoder_width, decoder_depth, decoder_heads: the decoder; its width is divisible by its heads and by 6.
    """

    def __init__(self, *, channels: int, patch: int = 16, width: int = 768, depth: int = 12, heads: int = 12,
                 decoder_width: int = 576, decoder_depth: int = 8, decoder_heads: int = 16) -> None:
        super().__init__()
        self.patch = patch
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads)
        self.decoder = VitDecoder(encoder_width=width, width=decoder_width, depth=decoder_depth, heads=decoder_heads,
                                  values=patch**3 * channels)

    def grid(self, size: Sequence[int]) -> Grid:
        """Tokens (k, j, i) of a volume of `size` voxels (``BadInput`` unless multiples of the patch)."""
        return self.encoder.grid(size)

    def encode(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Volumes (B, C, k, j, i) to CLS (B, width) and the tokens `keep` (B, n), or all: (B, n, width)."""
        cls, tokens, _ = self.encoder(volumes, keep)
        assert cls is not None  # this encoder is built with a class token
        return cls, tokens

    def decode(self, tokens: Tensor, keep: Tensor | None, grid: Grid, *, cls: Tensor | None = None) -> Tensor:
        """Predict every patch of `grid` from the kept tokens.

        Args:
            tokens: (B, n, width) of `encode`.
            keep: (B, n) the places of these tokens; None = all places in order.
            grid: tokens (k, j, i) of the whole volume.
            cls: (B, width), to let CLS take part in the decoder as in the released class; the published figure shows
                patch tokens only.

        Returns:
            (B, N, patch**3 * C), as `patchify` orders them.
        """
        return self.decoder(tokens, keep, grid, cls)

    def forward(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode and decode in one call (what DistributedDataParallel wraps): CLS (B, width), predictions (B, N, P)."""
        cls, tokens = self.encode(volumes, keep)
        return cls, self.decode(tokens, keep, self.grid(volumes.shape[2:]))

    def patchify(self, volumes: Tensor) -> Tensor:
        """(B, C, k, j, i) to (B, tokens, patch**3 * C); in a patch (k, j, i, channel), channel fastest."""
        return patchify(volumes, self.patch)

    def unpatchify(self, patches: Tensor, grid: Grid) -> Tensor:
        """(B, tokens, patch**3 * C) to (B, C, k, j, i); undoes `patchify`."""
        return unpatchify(patches, self.patch, grid)

    def masked_loss(self, prediction: Tensor, volumes: Tensor, keep: Tensor, *,
                    normalise_patches: bool = False) -> Tensor:
        """Mean squared error over the voxels of the dropped tokens, in fp32.

        Args:
            prediction: (B, N, patch**3 * C) of `decode`.
            volumes: (B, C, k, j, i), the intact volumes.
            keep: (B, n) the places that the encoder saw.
            normalise_patches: standardise every target patch first.
        """
        target = self.patchify(volumes.float())
        if normalise_patches:
            target = normalised_patches(target)
        masked = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device).scatter(1, keep, False)
        return masked_mean_squared_error(prediction, target, masked)

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        return self.encoder.features(volumes)
