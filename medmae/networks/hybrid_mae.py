"""The hybrid network as GL-MAE pretrains it: hidden patches are reconstructed through the whole U-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medmae.networks.hybrid import HybridEncoder
from medmae.networks.hybrid_decoder import HybridDecoder, MaskTokens
from medmae.networks.patch_reconstruction import PatchReconstruction
from medmae.networks.vit import Grid


class HybridMae(PatchReconstruction):
    """Encoder and decoder of `HybridUnet`, mask tokens and a 1x1x1 head that predicts voxels.

    Args:
        channels: channels of the volume.
        stem_widths, width, depth, heads: see `HybridEncoder`.
        decoder_depth: transformer blocks of the decoder.
    """

    def __init__(self, *, channels: int, stem_widths: Sequence[int] = (16, 32, 64), width: int = 192, depth: int = 4,
                 heads: int = 6, decoder_depth: int = 2) -> None:
        super().__init__()
        self.encoder = HybridEncoder(channels=channels, stem_widths=stem_widths, width=width, depth=depth, heads=heads)
        self.mask_tokens = MaskTokens(stem_widths=stem_widths, width=width)
        self.decoder = HybridDecoder(stem_widths=stem_widths, width=width, depth=decoder_depth, heads=heads)
        self.voxels = nn.Conv3d(stem_widths[0], channels, kernel_size=1)
        self.patch = self.encoder.patch

    def grid(self, size: Sequence[int]) -> Grid:
        """Tokens (k, j, i) of a volume of `size` voxels (``BadInput`` unless multiples of the patch)."""
        return self.encoder.grid(size)

    def forward(self, volumes: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """CLS and predictions, the interface of pretraining (what DistributedDataParallel wraps).

        Args:
            volumes: (B, C, k, j, i), sides multiples of the patch.
            keep: (B, n) the patches that the network sees; None = all.

        Returns:
            CLS (B, width) and predictions (B, N, voxels of a patch * C), as `patchify` orders them.
        """
        grid = self.grid(volumes.shape[2:])
        cls, tokens, skips = self.encoder(volumes, keep)
        if keep is not None:
            visible = [seen for seen in self.encoder.visible(keep, grid) if seen is not None]
            tokens, skips = self.mask_tokens.fill(tokens, skips, keep, visible, grid)
        return cls, self.patchify(self.voxels(self.decoder(tokens, skips, grid)[0]))

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        return self.encoder.features(volumes)
