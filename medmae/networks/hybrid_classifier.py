"""The hybrid network for classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from medmae.networks.hybrid import HybridEncoder
from medmae.networks.layers import initialise, pad_to_multiple


class HybridClassifier(nn.Module):
    """Convolutional stem, transformer, one vector for the volume after the final norm, head.

    Args:
        channels: channels of the volume.
        classes: classes.
        stem_widths, width, depth, heads: see `HybridEncoder`.
        pool: "mean" averages the patch tokens, "cls" takes CLS; both are pretrained.
        head: "linear", or "mlp": three linear layers with GELU between them, the hidden ones as wide as a token.
    """

    def __init__(self, *, channels: int, classes: int, stem_widths: Sequence[int] = (16, 32, 64), width: int = 192,
                 depth: int = 4, heads: int = 6, pool: Literal["mean", "cls"] = "mean",
                 head: Literal["linear", "mlp"] = "linear") -> None:
        super().__init__()
        if pool not in ("mean", "cls") or head not in ("linear", "mlp"):
            raise ValueError(f"pool must be mean or cls and head linear or mlp, not {pool!r} and {head!r}")
        self.encoder = HybridEncoder(channels=channels, stem_widths=stem_widths, width=width, depth=depth, heads=heads)
        self.pool = pool
        hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()] if head == "mlp" else []
        last = nn.Linear(width, classes)
        self.head: nn.Module = nn.Sequential(*hidden, last) if hidden else last
        self.head.apply(initialise)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes); padded inside to the patch."""
        cls, tokens, _ = self.encoder(pad_to_multiple(volumes, self.encoder.patch))
        return self.head(tokens.mean(dim=1) if self.pool == "mean" else cls)
