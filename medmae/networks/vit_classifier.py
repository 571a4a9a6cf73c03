"""GL-MAE's classification network (docs/methods.md): pooled patch tokens or CLS, linear or MLP head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medmae.networks.layers import NORM_EPS, pad_to_multiple
from medmae.networks.vit import Patch, VitEncoder
from medmae.networks.volume_classifier import Head, Pool, VolumeClassifier


class VitClassifier(VolumeClassifier):
    """ViT encoder, one vector for the volume after the final norm, head.

    The author's code computes the norm and then discards it; here the head gets normed tokens.

    Args:
        channels: channels of the volume.
        classes, pool, head, weight_grid, standardise: see `VolumeClassifier`. The encoder has a CLS where `pool` is
            "cls"; it is pretrained too.
        patch, width, depth, heads, position_grid, mlp_width, norm_eps: see `VitEncoder`.
    """

    def __init__(self, *, channels: int, classes: int, patch: Patch = 16, width: int = 768, depth: int = 12,
                 heads: int = 12, position_grid: Sequence[int] | None = None, pool: Pool = "mean",
                 head: Head = "linear", mlp_width: int | None = None, norm_eps: float = NORM_EPS,
                 weight_grid: Sequence[int] | None = None, standardise: bool = False) -> None:
        super().__init__(width=width, classes=classes, pool=pool, head=head, weight_grid=weight_grid,
                         standardise=standardise)
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=pool == "cls", position_grid=position_grid, mlp_width=mlp_width,
                                  norm_eps=norm_eps)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes); padded inside to the patch."""
        padded = pad_to_multiple(volumes, self.encoder.patch)
        cls, tokens, _ = self.encoder(padded)
        return self.answer(cls, tokens, self.encoder.grid(padded.shape[2:]))
