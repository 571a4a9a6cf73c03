"""Where the windows of a network lie on an image, how they are weighted, and which part of each is wanted.

Windows and weights are those of MONAI's `sliding_window_inference` (mode "gaussian", sigma an eighth of the window).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SMALLEST_WEIGHT = 1e-3
IsEmpty = Callable[[Sequence[int], Sequence[int]], bool]  # whether there is only air in a box: start and size (k, j, i)


@dataclass(frozen=True)
class AxisWindows:
    """The windows along one axis.

    Attributes:
        starts: first voxel of each window on the image; negative where the image is shorter than the window and stands
            in its middle.
        window: voxels of a window.
        lower, upper: the part of the axis whose result is wanted; every window touches it.
    """

    starts: tuple[int, ...]
    window: int
    lower: int
    upper: int

    @classmethod
    def of(cls, length: int, window: int, overlap: float, wanted: slice | None = None) -> AxisWindows:
        """The windows on an axis of `length` voxels that touch the part `wanted` (default: all of it)."""
        lower, upper = (0, length) if wanted is None else (wanted.start, wanted.stop)
        if length <= window:
            return cls((-((window - length) // 2),), window, lower, upper)
        starts = tuple(start for start in window_starts(length, window, overlap)
                       if start < upper and start + window > lower)
        return cls(starts, window, lower, upper)

    @property
    def extent(self) -> int:
        """Voxels of the wanted part."""
        return self.upper - self.lower

    def inside_window(self, start: int) -> slice:
        """The wanted part of the window at `start`, counted from the window's first voxel."""
        return slice(max(self.lower - start, 0), min(self.upper - start, self.window))

    def inside_wanted(self, start: int) -> slice:
        """The same part, counted from the first wanted voxel."""
        return slice(max(start - self.lower, 0), min(start + self.window, self.upper) - self.lower)


def least_values(image: np.ndarray, forget: Callable[[], None] | None = None) -> list[float]:
    """The least value of each channel of an image (C, k, j, i), plane by plane.

    `forget` is called after each plane, so that an image in a file need not stay in memory.
    """
    least = [float("inf")] * len(image)
    for channel, planes in enumerate(image):
        for plane in planes:
            least[channel] = min(least[channel], float(plane.min()))
            if forget is not None:
                forget()
    return least


def axes_of(size: Sequence[int], window: Sequence[int], overlap: float,
            wanted: Sequence[slice] | None = None) -> list[AxisWindows]:
    """The windows on an image of `size`, an axis each."""
    parts = [None] * len(size) if wanted is None else wanted
    return [AxisWindows.of(length, extent, overlap, part)
            for length, extent, part in zip(size, window, parts, strict=True)]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin on an axis of `length` >= `window` voxels; the last one ends at the border."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} is not in [0, 1)")
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def gaussian_weight(window: Sequence[int]) -> torch.Tensor:
    """Weights (*window) of a window's voxels when windows are blended: 1 in the centre, at least 0.001."""
    import torch  # here, so that planning needs none

    weight = torch.ones(())
    for extent in window:
        distance = torch.arange(extent, dtype=torch.float32) - (extent - 1) / 2
        weight = weight[..., None] * torch.exp(-distance**2 / (2 * (extent / 8) ** 2))
    return weight.clamp_min(max(float(weight.min()), SMALLEST_WEIGHT))


def cut(image: torch.Tensor, start: Sequence[int], window: Sequence[int]) -> torch.Tensor:
    """The window (C, *window) of an image (C, *spatial) at `start`, zeros where it reaches beyond; a view if it can."""
    size = image.shape[1:]
    inside = [slice(max(first, 0), min(first + extent, length))
              for first, extent, length in zip(start, window, size, strict=True)]
    part = image[(slice(None), *inside)]
    if part.shape[1:] == tuple(window):
        return part
    whole = image.new_zeros((image.shape[0], *window))
    whole[(slice(None), *(slice(own.start - first, own.stop - first)
                          for own, first in zip(inside, start, strict=True)))] = part
    return whole
