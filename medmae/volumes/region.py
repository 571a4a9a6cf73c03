"""A part of an image: a box of voxels, from a box in millimetres or from what is worth looking at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.geometry import Geometry

Index = tuple[int, int, int]
BoxMm = tuple[float, float, float, float, float, float]
TOLERANCE_MM = 1e-4  # a voxel centre on the border of a box belongs to it, whatever the rounding of the affine


@dataclass(frozen=True)
class Region:
    """The voxels lower <= (k, j, i) < upper of an image, in its stored axes.

    Attributes:
        lower: first voxel.
        upper: one past the last voxel.
        box_mm: R0, R1, A0, A1, S0, S1 in RAS mm: of the voxels above, only those with their centre in this box belong
            to the region (where the axes of the image are oblique to the body); None: all of them.
    """

    lower: Index
    upper: Index
    box_mm: BoxMm | None = None

    def __post_init__(self) -> None:
        if any(not 0 <= first < stop for first, stop in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"a region from {self.lower} to {self.upper} holds no voxel")

    @property
    def shape(self) -> Index:
        """Size of the box (k, j, i)."""
        k, j, i = (stop - first for first, stop in zip(self.lower, self.upper, strict=True))
        return k, j, i

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index of an array (k, j, i)."""
        k, j, i = (slice(first, stop) for first, stop in zip(self.lower, self.upper, strict=True))
        return k, j, i

    def covers(self, geometry: Geometry) -> bool:
        """Whether the box is the whole image."""
        return self.lower == (0, 0, 0) and self.upper == geometry.shape

    def intersection(self, other: Region) -> Region | None:
        """The voxels of both; None when there are none. Of two boxes in mm only one may be set."""
        if self.box_mm is not None and other.box_mm is not None and self.box_mm != other.box_mm:
            raise ValueError("two regions with different boxes in mm have no common box")
        lower = _triple(np.maximum(self.lower, other.lower))
        upper = _triple(np.minimum(self.upper, other.upper))
        if any(first >= stop for first, stop in zip(lower, upper, strict=True)):
            return None
        return Region(lower, upper, self.box_mm or other.box_mm)

    def keep_outside(self, labels: NDArray, geometry: Geometry, base: NDArray | None = None) -> None:
        """Put the voxels of `labels` (k, j, i) that are in the box but not in `box_mm` back to `base` (None: 0).

        Afterwards everything outside the region is as in `base`, also where the image is oblique to the box.
        """
        if self.box_mm is None:
            return
        first, stop = _lines_in_box(geometry, self.box_mm)
        columns = np.arange(self.lower[2], self.upper[2])
        for k in range(self.lower[0], self.upper[0]):
            rows = slice(self.lower[1], self.upper[1])
            outside = (columns < first[k, rows, None]) | (columns >= stop[k, rows, None])
            if outside.any():
                plane = labels[(k, *self.slices[1:])]
                plane[outside] = 0 if base is None else base[(k, *self.slices[1:])][outside]


def region_of_box(box_mm: Sequence[float], geometry: Geometry) -> Region:
    """The voxels of an image whose centres lie in a box.

    Args:
        box_mm: R0, R1, A0, A1, S0, S1: the lower and upper border towards right, anterior and superior, in RAS mm.
        geometry: the grid of the image.

    Raises:
        BadInput: not six numbers, a lower border above its upper one, or no voxel centre lies in the box.
    """
    values = [float(value) for value in box_mm]
    if len(values) != 6 or any(np.isnan(values)):
        raise BadInput(f"A region needs six numbers in RAS mm, R0 R1 A0 A1 S0 S1, not {_text(values)}.")
    if any(values[axis] > values[axis + 1] for axis in (0, 2, 4)):
        raise BadInput(f"The region {_text(values)} has a lower border above its upper one. "
                       "Give R0 R1 A0 A1 S0 S1 in RAS mm with R0 <= R1, A0 <= A1 and S0 <= S1.")
    box = (values[0], values[1], values[2], values[3], values[4], values[5])
    first, stop = _lines_in_box(geometry, box)
    lines = first < stop
    if not lines.any():
        raise BadInput(f"The region {_text(values)} holds no voxel of the image, which spans {_extent(geometry)} "
                       "(R0 R1 A0 A1 S0 S1 in RAS mm). Correct the region; for a point, give it some width.")
    k, j = np.flatnonzero(lines.any(1)), np.flatnonzero(lines.any(0))
    lower, upper = (k[0], j[0], first[lines].min()), (k[-1] + 1, j[-1] + 1, stop[lines].max())
    all_inside = bool(lines[k[0]:k[-1] + 1, j[0]:j[-1] + 1].all() and np.ptp(first[lines]) == 0
                       and np.ptp(stop[lines]) == 0)
    return Region(_triple(lower), _triple(upper), None if all_inside else box)


def _lines_in_box(geometry: Geometry, box: BoxMm) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each line of voxels along i, (k, j): the first voxel with its centre in the box and one past the last."""
    k, j, size = geometry.shape
    starts = geometry.to_world(np.stack(np.meshgrid(np.arange(k), np.arange(j), [0], indexing="ij"), -1))[:, :, 0]
    low, high = np.zeros((k, j)), np.full((k, j), size - 1.0)
    for axis in range(3):
        begin, end = box[2 * axis] - TOLERANCE_MM, box[2 * axis + 1] + TOLERANCE_MM
        position, step = starts[:, :, axis], geometry.affine[axis, 0]
        if abs(step) * size < TOLERANCE_MM:  # the line runs across this axis
            misses = (position < begin) | (position > end)
            low[misses], high[misses] = size, -1
            continue
        ends = (begin - position) / step, (end - position) / step
        low, high = np.maximum(low, np.minimum(*ends)), np.minimum(high, np.maximum(*ends))
    first, stop = np.ceil(low).astype(np.int64), np.floor(high).astype(np.int64) + 1
    return first, np.maximum(stop, first)


def _extent(geometry: Geometry) -> str:
    k, j, i = geometry.shape
    corners = geometry.to_world([(a, b, c) for a in (0, k - 1) for b in (0, j - 1) for c in (0, i - 1)])
    return _text([value for axis in range(3) for value in (corners[:, axis].min(), corners[:, axis].max())])


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _triple(values: Sequence[int] | NDArray) -> Index:
    k, j, i = (int(value) for value in values)
    return k, j, i
