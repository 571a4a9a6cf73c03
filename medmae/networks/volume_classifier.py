"""What GL-MAE's classification networks share: one vector for a volume out of its tokens, and the head on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.networks.layers import initialise
from medmae.networks.vit import Grid, resized_positions, three_sides

Pool = Literal["mean", "cls", "weighted"]
Head = Literal["linear", "mlp"]
POOLS, HEADS = ("mean", "cls", "weighted"), ("linear", "mlp")
# Only ratios of the weights matter, because what they give is standardised: small ones learn quickly.
PLACE_WEIGHT_STD = 0.003
STANDARD_EPS, STANDARD_MOMENTUM = 1e-8, 0.1


class Standardise(nn.Module):
    """Every channel minus its mean, divided by its deviation: of the batch in training, of the past after it.

    The batch norm without weights that masked autoencoders put before a linear head (arXiv 2111.06377, A.1). The pooled
    tokens of volumes hardly differ beside what they have in common (their positions), and a head sees the
    differences only after this.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, width) to the same; B is at least 2 in training."""
        return functional.batch_norm(pooled, self.mean, self.variance, training=self.training,
                                     momentum=STANDARD_MOMENTUM, eps=STANDARD_EPS)


class VolumeClassifier(nn.Module):
    """Base of the classification networks of volumes: pooling, standardisation, head.

    Args:
        width: of a token.
        classes: classes.
        pool: "mean" averages the patch tokens, "cls" takes CLS, "weighted" averages the patch tokens with a learned
            weight for every place and channel (a global depthwise convolution, arXiv 1804.07573), so that where
            something is seen counts too; the others lose it unless the encoder learns to write it into every token.
        head: "linear", or "mlp": three linear layers with GELU between them, the hidden ones as wide as a token.
        weight_grid: the grid (k, j, i) of the weights; on another one they are resized trilinearly.
        standardise: whether the head sees standardised values, and begins with equal classes. Always, where weighted.
    """

    def __init__(self, *, width: int, classes: int, pool: Pool, head: Head, weight_grid: Sequence[int] | None,
                 standardise: bool) -> None:
        super().__init__()
        if pool not in POOLS or head not in HEADS:
            raise ValueError(f"pool must be mean, cls or weighted and head linear or mlp, not {pool!r} and {head!r}")
        if pool == "weighted" and weight_grid is None:
            raise ValueError("pool=weighted needs a weight_grid, the tokens (k, j, i) of the network's input")
        self.pool = pool
        self.weight_grid: Grid | None = None
        if pool == "weighted" and weight_grid is not None:
            self.weight_grid = three_sides(weight_grid, "weight_grid")
            k, j, i = self.weight_grid
            self.place_weights = nn.Parameter(torch.empty(k * j * i, width).normal_(std=PLACE_WEIGHT_STD))
        self.standardise = Standardise(width) if standardise or pool == "weighted" else None
        hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()] if head == "mlp" else []
        last = nn.Linear(width, classes)
        self.head: nn.Module = nn.Sequential(*hidden, last) if hidden else last
        self.head.apply(initialise)
        if self.standardise is not None:
            nn.init.zeros_(last.weight)

    @property
    def least_batch(self) -> int:
        """Samples that a training step needs at least: one has no deviation."""
        return 1 if self.standardise is None else 2

    def answer(self, cls: Tensor | None, tokens: Tensor, grid: Grid) -> Tensor:
        """Logits (B, classes) from CLS (B, width), where it is there, and tokens (B, N, width) of a grid of N."""
        if self.standardise is None:
            return self.head(self._pooled(cls, tokens, grid))
        with torch.autocast(tokens.device.type, enabled=False):  # differences are small beside what is common
            pooled = self.standardise(self._pooled(None if cls is None else cls.float(), tokens.float(), grid))
        return self.head(pooled)

    def _pooled(self, cls: Tensor | None, tokens: Tensor, grid: Grid) -> Tensor:
        if self.pool == "cls":
            assert cls is not None  # the encoder was built with it
            return cls
        if self.weight_grid is None:
            return tokens.mean(dim=1)
        weights = resized_positions(self.place_weights, self.weight_grid, grid)
        return (tokens * weights).mean(dim=1) * len(self.place_weights)
