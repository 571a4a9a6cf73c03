"""Lossless change of the axis order: flips and transpositions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmae.volumes.geometry import Geometry, direction_of_axes


@dataclass(frozen=True)
class AxisChange:
    """How the spatial axes are permuted and flipped.

    Attributes:
        order: for each new axis (k, j, i), the old axis it comes from.
        flips: for each new axis (k, j, i), whether it runs the other way.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Array (..., k, j, i) with its last three axes permuted and flipped, contiguous."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        # An axis of one voxel is not flipped: NumPy would call its negative stride contiguous, PyTorch refuses it.
        flips = tuple(lead + axis for axis in range(3) if self.flips[axis] and moved.shape[lead + axis] > 1)
        return np.ascontiguousarray(np.flip(moved, flips) if flips else moved)

    def box(self, lower: Sequence[int], shape: Sequence[int],
            whole: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Start and size, along the new axes, of the box of size `shape` at `lower` of an array of size `whole`."""
        start = [whole[old] - lower[old] - shape[old] if flip else lower[old]
                 for old, flip in zip(self.order, self.flips, strict=True)]
        size = [shape[old] for old in self.order]
        return (start[0], start[1], start[2]), (size[0], size[1], size[2])

    def view(self, array: np.ndarray) -> np.ndarray:
        """As `apply`, but a view: what is written into it is written into `array` (k, j, i)."""
        return np.flip(array.transpose(self.order), tuple(axis for axis in range(3) if self.flips[axis]))


def axis_change(geometry: Geometry, axes: str) -> AxisChange:
    """The change that turns `geometry` towards the anatomical directions `axes` of i, j and k, for example "RAS"."""
    old, new = direction_of_axes(geometry.axes), direction_of_axes(axes)
    match = (new.T @ old)[::-1, ::-1]  # rows: new axes (k, j, i); columns: old ones; entries -1, 0 or 1
    sources = np.abs(match).argmax(axis=1)
    signs = match[np.arange(3), sources]
    return AxisChange((int(sources[0]), int(sources[1]), int(sources[2])),
                      (bool(signs[0] < 0), bool(signs[1] < 0), bool(signs[2] < 0)))


def reorient(array: np.ndarray, geometry: Geometry, axes: str) -> tuple[np.ndarray, Geometry]:
    """Turn an image so that i, j and k increase towards `axes`; no voxel value changes.

    Oblique images keep their small angles; calling it again with the former ``geometry.axes`` undoes it exactly.

    Args:
        array: (..., k, j, i).
        geometry: its grid.
        axes: three anatomical letters, for example "RAS".

    Returns:
        The array and its grid; every voxel keeps its RAS position.
    """
    _require_shape(array.shape, geometry)
    change = axis_change(geometry, axes)
    return change.apply(array), reoriented_geometry(geometry, change)


def reoriented_geometry(geometry: Geometry, change: AxisChange) -> Geometry:
    """The grid after `change`."""
    shape = np.array(geometry.shape)[list(change.order)]
    columns = geometry.affine[:3, :3][:, ::-1][:, list(change.order)]  # old columns in array order, permuted
    first = np.zeros(3)
    for axis in range(3):
        if change.flips[axis]:
            first[change.order[axis]] = shape[axis] - 1
    affine = np.eye(4)
    affine[:3, :3] = np.where(change.flips, -columns, columns)[:, ::-1]
    affine[:3, 3] = geometry.to_world(first)
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _require_shape(shape: Sequence[int], geometry: Geometry) -> None:
    if tuple(shape[-3:]) != geometry.shape:
        raise ValueError(f"Array {tuple(shape)} does not fit the grid {geometry.shape}.")
