"""GL-MAE's classification network (docs/methods.md): mean of the normed patch tokens or CLS, linear or MLP head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS, initialise, pad_to_multiple
from medmae.networks.vit import Patch, VitEncoder


class VitClassifier(nn.Module):
    """ViT encoder, one vector for the volume after the final norm, head.

    The author's code computes the norm and then discards it; here the head gets normed tokens.

    Args:
        channels: channels of the volume.
        classes: classes.
        patch, width, depth, heads, position_grid, mlp_width, norm_eps: see `VitEncoder`.
        pool: "mean" averages the patch tokens, the encoder then has no CLS; "cls" takes CLS, which is pretrained too.
        head: "linear", or "mlp": three linear layers with GELU between them, the hidden ones as wide as a token.
    """

    def __init__(self, *, channels: int, classes: int, patch: Patch = 16, width: int = 768, depth: int = 12,
                 heads: int = 12, position_grid: Sequence[int] | None = None, pool: Literal["mean", "cls"] = "mean",
                 head: Literal["linear", "mlp"] = "linear", mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        if pool not in ("mean", "cls") or head not in ("linear", "mlp"):
            raise ValueError(f"pool must be mean or cls and head linear or mlp, not {pool!r} and {head!r}")
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=pool == "cls", position_grid=position_grid, mlp_width=mlp_width,
                                  norm_eps=norm_eps)
        hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()] if head == "mlp" else []
        last = nn.Linear(width, classes)
        self.head: nn.Module = nn.Sequential(*hidden, last) if hidden else last
        self.head.apply(initialise)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes); padded inside to the patch."""
        cls, tokens, _ = self.encoder(pad_to_multiple(volumes, self.encoder.patch))
        return self.head(tokens.mean(dim=1) if cls is None else cls)
