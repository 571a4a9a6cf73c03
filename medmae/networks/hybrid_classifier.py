"""The hybrid network for classification."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medmae.networks.hybrid import HybridEncoder
from medmae.networks.layers import pad_to_multiple
from medmae.networks.volume_classifier import Head, Pool, VolumeClassifier


class HybridClassifier(VolumeClassifier):
    """Convolutional stem, transformer, one vector for the volume after the final norm, head.

    Args:
        channels: channels of the volume.
        classes, pool, head, weight_grid, standardise: see `VolumeClassifier`; CLS is pretrained like the tokens.
        stem_widths, width, depth, heads: see `HybridEncoder`.
    """

    def __init__(self, *, channels: int, classes: int, stem_widths: Sequence[int] = (16, 32, 64), width: int = 192,
                 depth: int = 4, heads: int = 6, pool: Pool = "mean", head: Head = "linear",
                 weight_grid: Sequence[int] | None = None, standardise: bool = False) -> None:
        super().__init__(width=width, classes=classes, pool=pool, head=head, weight_grid=weight_grid,
                         standardise=standardise)
        self.encoder = HybridEncoder(channels=channels, stem_widths=stem_widths, width=width, depth=depth, heads=heads)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes); padded inside to the patch."""
        padded = pad_to_multiple(volumes, self.encoder.patch)
        cls, tokens, _ = self.encoder(padded)
        return self.answer(cls, tokens, self.encoder.grid(padded.shape[2:]))
