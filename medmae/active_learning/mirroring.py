"""Networks on mirrored images."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def mirrorings(dims: int) -> list[tuple[int, ...]]:
    """The 2^dims combinations of the spatial axes of images (B, C, *spatial), the empty one first."""
    axes = range(2, 2 + dims)
    return [combination for count in range(dims + 1) for combination in itertools.combinations(axes, count)]


class Mirrored(nn.Module):
    """A classification network that sees its images mirrored along `axes`."""

    def __init__(self, network: nn.Module, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.axes = axes

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) to logits (B, K)."""
        return self.network(images.flip(self.axes))


class MirroredMean(nn.Module):
    """A segmentation network whose answer is the mean of its probabilities over all mirrorings.

    `WindowPredictor` can mirror too, but averages what enters the last layer, in which predictions that contradict each
    other cancel without a trace; the mean of probabilities keeps them as uncertainty.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def takes_any_window(self) -> bool:
        """Whether the network is as good on smaller windows."""
        return bool(getattr(self.network, "takes_any_window", False))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) to the logarithm of the mean of the softmaxes, (B, K, *spatial) float32."""
        axes = mirrorings(images.ndim - 2)
        total: Tensor | None = None
        for mirrored in axes:
            logits = self.network(images.flip(mirrored)).flip(mirrored)
            part = functional.log_softmax(logits.float(), 1)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None
        return total - math.log(len(axes))
