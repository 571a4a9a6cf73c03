"""GL-MAE's classification network (docs/methods.md): mean over the normed patch tokens, linear head."""

from __future__ import annotations

from torch import Tensor, nn

from medmae.networks.layers import initialise, pad_to_multiple
from medmae.networks.vit import VitEncoder


class VitClassifier(nn.Module):
    """ViT encoder without CLS, mean over the tokens after the final norm, linear head.

    The author's code computes the norm and then discards it; here the head gets normed tokens.

    Args:
        channels: channels of the volume.
        classes: classes.
        patch, width, depth, heads: see `VitEncoder`.
    """

    def __init__(self, *, channels: int, classes: int, patch: int = 16, width: int = 768, depth: int = 12,
                 heads: int = 12) -> None:
        super().__init__()
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=False)
        self.head = nn.Linear(width, classes)
        initialise(self.head)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes)."""
        tokens = self.encoder(pad_to_multiple(volumes, self.encoder.patch))[1]
        return self.head(tokens.mean(dim=1))
