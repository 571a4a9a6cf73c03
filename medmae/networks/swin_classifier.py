"""VIS-MAE's classification network (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS, initialise
from medmae.networks.swin_encoder import SwinEncoder


class SwinClassifier(nn.Module):
    """Swin encoder, LayerNorm, mean over the coarsest map, linear head.

    Args:
        channels: channels of the image.
        classes: classes.
        patch, width, depths, heads, window, drop_path, masked_padding: see `SwinEncoder`.
    """

    def __init__(self, *, channels: int, classes: int, patch: int = 4, width: int = 96,
                 depths: Sequence[int] = (2, 2, 2, 2), heads: Sequence[int] = (3, 6, 12, 24), window: int = 7,
                 drop_path: float = 0.1, masked_padding: bool = True) -> None:
        super().__init__()
        self.encoder = SwinEncoder(channels=channels, patch=patch, width=width, depths=depths, heads=heads,
                                   window=window, drop_path=drop_path, masked_padding=masked_padding)
        self.norm = nn.LayerNorm(self.encoder.widths[-1], eps=NORM_EPS)
        self.head = nn.Linear(self.encoder.widths[-1], classes)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of any size to logits (B, classes)."""
        coarsest = self.encoder(self.encoder.embed(images))[1][-1]
        return self.head(self.norm(coarsest).mean(dim=(1, 2)))
