"""Volume and surface area of the labels of a label map, from the voxels between labels alone.

The surface area is that of Crofton's formula: lines of a direction cross a surface twice as often as its projection is
large, so that counting how often voxel lines in the 13 directions of neighbours enter and leave a label gives its area.
Each direction counts by the part of the sphere that lies nearer to it than to the others (its Voronoi cell), in mm, so
that anisotropic voxels need nothing special (Lehmann and Legland, Efficient N-dimensional surface estimation using
Crofton formula and run-length encoding, Insight Journal 2012). Counting the faces of voxels is 50 % too much for balls
at any resolution. Measured on voxels of ratios up to 10: balls and ellipsoids in any direction within 3 % as a rule and
7 % at worst; flat faces along the grid are the worst there is, 9 % low on cubic voxels and 14 to 21 % where a side is
two to ten times another.

The number of voxels is counted with the same crossings: along a line, where a label ends less where it begins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.volumes import Geometry

VOXELS_AT_ONCE = 2**20
CORNERS = tuple(itertools.product((0, 1), repeat=3))  # of a cell of 2 x 2 x 2 voxels, (k, j, i)


@dataclass(frozen=True)
class Measurement:
    """Size of one label.

    Attributes:
        voxels: how many there are.
        ml: their volume; None where the spacing is unknown.
        area_mm2: surface; the faces in which the edge of the image cuts the label count. None where the spacing is
            unknown, and of single pictures.
    """

    voxels: int
    ml: float | None
    area_mm2: float | None


def measure_labels(labels: NDArray, geometry: Geometry, values: Sequence[int], *, background: int = 0,
                   spacing_known: bool = True, is_2d: bool = False) -> dict[int, Measurement]:
    """The measurements of each of `values` in `labels` (k, j, i); only voxels between labels are looked at twice.

    Args:
        labels: integers on the grid `geometry`.
        geometry: gives the spacing; its direction does not matter.
        values: the label values to measure.
        background: the value of what is no segment.
        spacing_known: whether `geometry` is in true millimetres.
        is_2d: a picture has no surface.
    """
    known = np.array(sorted({int(value) for value in values} | {background}), np.int64)
    weights = direction_weights(geometry.spacing_mm)
    voxels, crossed_mm2 = np.zeros(len(known) + 1), np.zeros(len(known) + 1)
    planes = max(1, VOXELS_AT_ONCE // (labels.shape[1] * labels.shape[2]))
    for start in range(-1, labels.shape[0], planes):
        slab = _padded(labels, start, min(start + planes, labels.shape[0]), background)
        counted, crossed = _crossings(slab, known, weights)
        voxels, crossed_mm2 = voxels + counted, crossed_mm2 + crossed
    voxel_ml = geometry.voxel_volume_ml if spacing_known else None
    found = {}
    for value in values:
        index = int(np.searchsorted(known, value))
        found[int(value)] = Measurement(
            round(voxels[index]), None if voxel_ml is None else round(round(voxels[index]) * voxel_ml, 6),
            round(2 * float(crossed_mm2[index]), 3) if spacing_known and not is_2d else None)
    return found


def direction_weights(spacing_mm: Sequence[float]) -> list[tuple[tuple[int, int], float]]:
    """The 13 directions as pairs of `CORNERS`, with the mm2 for which a crossing of a line in that direction stands.

    It is the part of the sphere that is nearest to the direction times the area that belongs to one line.
    """
    from scipy.spatial import SphericalVoronoi

    pairs = [(low, high) for low, high in itertools.combinations(range(8), 2)
             if all(0 in ends for ends in zip(CORNERS[low], CORNERS[high], strict=True))]  # once each: from the corner
    steps = np.array([np.subtract(CORNERS[high], CORNERS[low]) for low, high in pairs]) * np.asarray(spacing_mm, float)
    lengths = np.linalg.norm(steps, axis=1)
    directions = steps / lengths[:, None]
    parts = SphericalVoronoi(np.concatenate([directions, -directions])).calculate_areas()[:len(pairs)] / (2 * np.pi)
    per_line = float(np.prod(spacing_mm)) / lengths
    return [(pair, float(weight)) for pair, weight in zip(pairs, parts * per_line, strict=True)]


def _padded(labels: NDArray, first: int, last: int, background: int) -> NDArray:
    """The planes `first` to `last`, both included, with one voxel of background where there is no image."""
    slab = np.full((last - first + 1, labels.shape[1] + 2, labels.shape[2] + 2), background, labels.dtype)
    low, high = max(first, 0), min(last, labels.shape[0] - 1)
    slab[low - first:high - first + 1, 1:-1, 1:-1] = labels[low:high + 1]
    return slab


def _crossings(slab: NDArray, known: NDArray[np.int64], weights: Sequence[tuple[tuple[int, int], float]],
               ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each of `known` (and last for all else) the voxels in the lines that begin in the slab's planes but the last,
    and the mm2 of the pairs of neighbours of which just one has that label.

    All neighbours of a voxel in the 13 directions lie in one cell of 2 x 2 x 2, so that only cells with several labels
    need a look. The cells at the end of a row reach into the next one, but there all is padding.
    """
    flat, (_, rows, columns) = slab.reshape(-1), slab.shape
    low = high = flat
    for step in (1, columns, rows * columns):
        low, high = np.minimum(low[:-step], low[step:]), np.maximum(high[:-step], high[step:])
    cells = np.flatnonzero(low != high)
    corners = [_indices(flat[cells + ((k * rows + j) * columns + i)], known) for k, j, i in CORNERS]
    kinds = len(known) + 1
    crossed = np.zeros(kinds)
    for (one, other), weight in weights:
        pairs = np.bincount(corners[one] * kinds + corners[other], minlength=kinds**2).reshape(kinds, kinds)
        crossed += weight * (pairs.sum(0) + pairs.sum(1) - 2 * pairs.diagonal())
    place = cells % columns
    ends, begins = (np.bincount(corners[corner], weights=place, minlength=kinds) for corner in (0, 1))
    return np.asarray(ends - begins, np.float64), crossed


def _indices(values: NDArray, known: NDArray[np.int64]) -> NDArray[np.intp]:
    """The place of each value in `known`; those that are not there share the place behind the last."""
    if values.dtype in (np.uint8, np.uint16):
        table = np.full(int(np.iinfo(values.dtype).max) + 1, len(known), np.intp)
        fitting = known[(known >= 0) & (known < len(table))]
        table[fitting] = np.searchsorted(known, fitting)
        return table[values]
    place = np.searchsorted(known, values).clip(0, len(known) - 1)
    return np.where(known[place] == values, place, len(known))
