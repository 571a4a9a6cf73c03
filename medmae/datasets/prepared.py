"""What preprocessing makes of an image, and the way back to the image's own grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from medmae.volumes.geometry import Geometry
from medmae.volumes.orientation import AxisChange

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Prepared:
    """The network's view of an image and the way back.

    Attributes:
        array: (C, k, j, i) float32, normalised.
        geometry: the grid of `array`.
        grid: the image's own grid in the model's orientation.
        target: the part of `grid` that is to be labelled; all of it unless a region was chosen.
        target_start: the voxel of `grid` (k, j, i) where `target` begins.
        source_geometry: the image's grid as stored.
        change: from the stored axes to the model's.
        is_2d: the image is a single picture.
        spacing_known: whether millimetres are known.
        source: the image's path, for messages.
    """

    array: np.ndarray
    geometry: Geometry
    grid: Geometry
    target: Geometry
    target_start: Index
    source_geometry: Geometry
    change: AxisChange
    is_2d: bool
    spacing_known: bool
    source: str

    def blank(self, dtype: DTypeLike, base: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """An array for results as the image is stored, and the view of it through which `target` is written.

        Args:
            dtype: of the voxels.
            base: (k, j, i) on `source_geometry`, copied as what stays outside `target`; None: zeros.

        Returns:
            The array (k, j, i) on `source_geometry`, and a view of it: (k, j, i) on `target`, in the model's axes.
        """
        shape = self.source_geometry.shape
        if base is not None and base.shape != shape:
            raise ValueError(f"base {base.shape} does not fit the grid {shape}")
        stored = np.zeros(shape, dtype) if base is None else np.array(base, dtype, order="C")
        return stored, self.target_view(stored)

    def target_view(self, stored: np.ndarray) -> np.ndarray:
        """The view (k, j, i), on `target`, of an array (k, j, i) on `source_geometry`."""
        k, j, i = (slice(begin, begin + size)
                   for begin, size in zip(self.target_start, self.target.shape, strict=True))
        return self.change.view(stored)[k, j, i]

    def to_source_axes(self, values: np.ndarray) -> np.ndarray:
        """Undo the reorientation, losslessly: (..., k, j, i) on `grid` to (..., k, j, i) on `source_geometry`."""
        leading = values.ndim - 3
        flips = tuple(leading + axis for axis in range(3) if self.change.flips[axis])
        order = (int(axis) for axis in np.argsort(self.change.order))
        unflipped = np.flip(values, flips)
        return np.ascontiguousarray(unflipped.transpose(*range(leading), *(leading + axis for axis in order)))
