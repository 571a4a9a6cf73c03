"""Networks on mirrored images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.active_learning.config import Mirror
from medmae.models import ModelInfo

Axes = tuple[int, ...]


def mirrorings(info: ModelInfo, mirror: Mirror) -> list[Axes]:
    """Every combination of the axes of images (B, C, *spatial) along which a model sees them mirrored, the empty one
    first.

    "trained": the axes along which the model's training mirrored images, as model.json tells. To a model that never saw
    a head upside down, or for which front and back have names, such an image says nothing about the one in question. A
    model that does not tell, made elsewhere, sees images as they are.
    """
    known = info.flip_axes or () if mirror == "trained" else range(info.spatial_dims * (mirror == "all"))
    axes = [2 + axis for axis in known]
    return [combination for count in range(len(axes) + 1) for combination in itertools.combinations(axes, count)]


class Mirrored(nn.Module):
    """A classification network that sees its images mirrored along `axes`."""

    def __init__(self, network: nn.Module, axes: Axes) -> None:
        super().__init__()
        self.network = network
        self.axes = axes

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) to logits (B, K)."""
        return self.network(images.flip(self.axes))


class MirroredMean(nn.Module):
    """A segmentation network whose answer is the mean of its probabilities over `mirrored` images.

    `WindowPredictor` can mirror too, but averages what enters the last layer, in which predictions that contradict each
    other cancel without a trace; the mean of probabilities keeps them as uncertainty.
    """

    def __init__(self, network: nn.Module, mirrored: Sequence[Axes]) -> None:
        super().__init__()
        self.network = network
        self.mirrored = list(mirrored)

    @property
    def takes_any_window(self) -> bool:
        """Whether the network is as good on smaller windows."""
        return bool(getattr(self.network, "takes_any_window", False))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) to the logarithm of the mean of the softmaxes, (B, K, *spatial) float32."""
        total: Tensor | None = None
        for axes in self.mirrored:
            logits = self.network(images.flip(axes)).flip(axes)
            part = functional.log_softmax(logits.float(), 1)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None
        return total - math.log(len(self.mirrored))
