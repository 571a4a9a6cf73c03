"""Resampling a volume plane by plane as it is read, so that no second copy of it ever exists.

The arithmetic is that of `resample` after `reorient`, operation by operation, so the results are equal bit for bit.
Only the order differs: each stored plane is turned into what the result needs of it and then forgotten. 512 x 512 x 400
voxels (int16) of 0.8 x 0.8 x 1 mm to 1.5 mm take 0.6 s of one core and 5 MB beyond the result of 76 MB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medmae.volumes.geometry import Geometry
from medmae.volumes.orientation import AxisChange
from medmae.volumes.resampling import Taps, parallel_taps, placement_of, sequence_of_axes

Planes = Callable[[int], NDArray[np.float32]]
PLANES_BEFORE_FORGETTING = 16


@dataclasses.dataclass(frozen=True)
class StreamedGrid:
    """How the planes of a stored image become a volume on another grid (or on a part of it).

    Attributes:
        change: from the stored axes to those of the grid.
        taps: for each axis of the grid (k, j, i), the stored voxels that its voxels are made of.
        sequence: the axes in the order in which they are resampled.
    """

    change: AxisChange
    taps: tuple[Taps, Taps, Taps]
    sequence: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size of the result (k, j, i)."""
        k, j, i = (len(taps.indices) for taps in self.taps)
        return k, j, i

    @property
    def is_inside(self) -> bool:
        """Whether all of the result lies in the field of view of the image."""
        return all(bool(taps.inside.all()) for taps in self.taps)


def streamed_grid(grid: Geometry, change: AxisChange, target: Geometry, start: Sequence[int],
                  shape: Sequence[int]) -> StreamedGrid | None:
    """The way from an image, as stored, onto the box of `shape` voxels at `start` of the grid `target`.

    Args:
        grid: the image's grid after `change`.
        change: from the stored axes to those of `grid`.
        target: the whole grid of the result, so that a part of it has exactly the values of the whole.
        start: first voxel of the box (k, j, i).
        shape: size of the box.

    Returns:
        None where `target` is oblique to `grid` or has its axes in another order.
    """
    if grid.is_close(target):
        whole = [_identity(size) for size in grid.shape]
    else:
        placement = placement_of(grid, target)
        if placement.axes != (0, 1, 2):
            return None
        whole = parallel_taps(grid.shape, target, placement)
    parts = []
    for axis, taps in enumerate(whole):
        rows = slice(start[axis], start[axis] + shape[axis])
        indices = taps.indices[rows]
        if change.flips[axis]:
            indices = grid.shape[axis] - 1 - indices
        parts.append(Taps(indices, taps.weights[rows], taps.inside[rows]))
    return StreamedGrid(change, (parts[0], parts[1], parts[2]), tuple(sequence_of_axes(grid.shape, whole)))


def stream_planes(planes: Planes, way: StreamedGrid, result: NDArray[np.float32], fill: float | None = None,
                  forget: Callable[[], None] | None = None) -> None:
    """Resample a stored image into `result` (k, j, i), visiting each of its planes once.

    Args:
        planes: gives the stored plane of an index, (rows, columns) float32, a new array each time.
        way: from `streamed_grid`.
        result: of `way.shape`; every voxel is written.
        fill: value of voxels outside the image's field of view; needed unless `way.is_inside`.
        forget: called every few planes, so that a result in a file need not stay in memory.
    """
    order = way.change.order
    back = [order.index(stored) for stored in range(3)]  # for each stored axis the axis of the result
    stored_result = result.transpose(back)
    lead, sequence = back[0], list(way.sequence)
    split = sequence.index(lead)
    before = [(order[axis] - 1, way.taps[axis]) for axis in sequence[:split]]
    after = [(order[axis] - 1, way.taps[axis]) for axis in sequence[split + 1:]]
    taps = way.taps[lead]
    weights = taps.weights.astype(np.float32)
    kept: dict[int, NDArray[np.float32]] = {}
    for done, number in enumerate(_in_stored_order(taps), start=1):
        used = np.flatnonzero(weights[number])
        wanted = taps.indices[number, used].tolist()
        kept = {index: kept[index] if index in kept else _in_plane(planes(index), before) for index in set(wanted)}
        plane = kept[wanted[0]] * weights[number, used[0]]
        for index, position in zip(wanted[1:], used[1:], strict=True):
            plane += kept[index] * weights[number, position]
        stored_result[number] = _in_plane(plane, after)
        if forget is not None and done % PLANES_BEFORE_FORGETTING == 0:
            forget()
    for axis, one in enumerate(way.taps):
        if not one.inside.all():
            np.moveaxis(result, axis, 0)[~one.inside] = fill


def _in_stored_order(taps: Taps) -> range:
    count = len(taps.indices)
    return range(count) if taps.indices[0, 0] <= taps.indices[-1, 0] else range(count - 1, -1, -1)


def _identity(size: int) -> Taps:
    return Taps(np.arange(size)[:, None], np.ones((size, 1)), np.ones(size, bool))


def _in_plane(plane: NDArray[np.float32], steps: Sequence[tuple[int, Taps]]) -> NDArray[np.float32]:
    for axis, taps in steps:
        plane = _rows(plane, taps) if axis == 0 else _rows(np.ascontiguousarray(plane.T), taps).T
    return plane


def _rows(plane: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    """Resample the first axis of (rows, columns)."""
    result = np.take(plane, taps.indices[:, 0], axis=0)
    if taps.is_copy:
        return result
    weights = taps.weights.astype(np.float32)
    part = np.empty_like(result)
    result *= weights[:, :1]
    for t in range(1, weights.shape[1]):
        np.take(plane, taps.indices[:, t], axis=0, out=part, mode="clip")
        part *= weights[:, t:t + 1]
        part[weights[:, t] == 0] = 0  # a voxel of weight 0 must not count even when it is infinite or not a number
        result += part
    return result
