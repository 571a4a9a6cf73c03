"""A ViT encoder without any decoder, as other systems hand it out: to be finetuned, not pretrained further."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS
from medmae.networks.vit import Patch, VitEncoder


class VitAlone(nn.Module):
    """`VitEncoder` under the name that every pretrained network has for it; nothing in it is fresh.

    Args:
        channels: channels of the volume.
        patch, width, depth, heads, class_token, position_grid, mlp_width, norm_eps: see `VitEncoder`.
    """

    def __init__(self, *, channels: int, patch: Patch = 16, width: int = 768, depth: int = 12, heads: int = 12,
                 class_token: bool = True, position_grid: Sequence[int] | None = None, mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=class_token, position_grid=position_grid, mlp_width=mlp_width,
                                  norm_eps=norm_eps)

    def forward(self, volumes: Tensor) -> tuple[Tensor | None, Tensor]:
        """Volumes (B, C, k, j, i) of whole patches to CLS (B, width) or None, and tokens (B, N, width)."""
        cls, tokens, _ = self.encoder(volumes)
        return cls, tokens

    def features(self, volumes: Tensor) -> list[Tensor]:
        """Volumes (B, C, k, j, i) of any size to one map (B, width, *grid), after the final norm, without CLS."""
        return self.encoder.features(volumes)
