"""The hybrid network for segmentation: all but its head comes from pretraining."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medmae.networks.hybrid import HybridEncoder
from medmae.networks.hybrid_decoder import HybridDecoder
from medmae.networks.layers import crop_to, pad_to_multiple


class HybridUnet(nn.Module):
    """Convolutional stem, transformer, U-Net decoder with skips, 1x1x1 head.

    Args:
        channels: channels of the volume.
        classes: classes including background.
        stem_widths, width, depth, heads: see `HybridEncoder`.
        decoder_depth: transformer blocks of the decoder.
        deep_supervision: how many coarser levels have a head of their own, for `deep_logits`.
    """

    takes_any_window = True  # positions are computed

    def __init__(self, *, channels: int, classes: int, stem_widths: Sequence[int] = (16, 32, 64), width: int = 192,
                 depth: int = 4, heads: int = 6, decoder_depth: int = 2, deep_supervision: int = 0) -> None:
        super().__init__()
        if not 0 <= deep_supervision < len(stem_widths):
            raise ValueError(f"a stem of {len(stem_widths)} levels has {len(stem_widths) - 1} coarser ones, not "
                             f"{deep_supervision} to supervise")
        self.encoder = HybridEncoder(channels=channels, stem_widths=stem_widths, width=width, depth=depth, heads=heads)
        self.decoder = HybridDecoder(stem_widths=stem_widths, width=width, depth=decoder_depth, heads=heads)
        self.head = nn.Conv3d(stem_widths[0], classes, kernel_size=1)
        self.deep_heads = nn.ModuleList(nn.Conv3d(size, classes, kernel_size=1)
                                        for size in stem_widths[1:deep_supervision + 1])

    def _levels(self, volumes: Tensor) -> list[Tensor]:
        padded = pad_to_multiple(volumes, self.encoder.patch)
        _, tokens, skips = self.encoder(padded)
        return self.decoder(tokens, skips, self.encoder.grid(padded.shape[2:]))

    def voxel_features(self, volumes: Tensor) -> Tensor:
        """What the head sees: volumes (B, C, k, j, i) of any size to (B, stem_widths[0], k, j, i)."""
        return crop_to(self._levels(volumes)[0], volumes.shape[2:])

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes, k, j, i); padded inside to the patch."""
        return self.head(self.voxel_features(volumes))

    def deep_logits(self, volumes: Tensor) -> list[Tensor]:
        """Logits for training with deep supervision: those of `forward` first, then one map a coarser level.

        Sides are halved from map to map, odd ones rounded up.
        """
        levels, size = self._levels(volumes), list(volumes.shape[2:])
        logits = [crop_to(self.head(levels[0]), size)]
        for head, features in zip(self.deep_heads, levels[1:], strict=False):
            size = [-(-side // 2) for side in size]
            logits.append(crop_to(head(features), size))
        return logits
