"""Sampling a label map on another grid without the steps of nearest-neighbour sampling."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from medmae.volumes.geometry import Geometry
from medmae.volumes.resampling import resample


def resample_labels(labels: NDArray, source: Geometry, target: Geometry) -> NDArray:
    """Sample each label's indicator linearly and keep the label with the largest share ("label linear").

    Grids that share voxel centres are copied exactly; voxels outside the source's field of view become 0; of equal
    shares the lowest label wins. Each label is sampled only in the box that holds it, so that many small structures
    cost little more than one.

    Args:
        labels: (k, j, i) integers on the grid `source`.
        source: the grid of `labels`.
        target: the grid of the result.

    Returns:
        (k, j, i) on the grid `target`, of the type of `labels`.
    """
    if labels.shape != source.shape or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Labels must be integers on the grid {source.shape}, not {labels.dtype} {labels.shape}.")
    result = np.zeros(target.shape, labels.dtype)
    if source.is_close(target):
        result[...] = labels
        return result
    best = np.zeros(target.shape, np.float32)
    background = np.ones(target.shape, np.float32)
    # A coarse target voxel gathers from its own width around; a fine one from the next source voxel.
    reach = 1 + np.ceil(max(target.spacing_mm) / np.array(source.spacing_mm)).astype(int)
    for value, box in sorted(_boxes(labels).items()):
        start = [max(0, part.start - int(by)) for part, by in zip(box, reach, strict=True)]
        stop = [min(size, part.stop + int(by)) for part, by, size in zip(box, reach, labels.shape, strict=True)]
        part = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        source_box = source.cropped(start, [b - a for a, b in zip(start, stop, strict=True)])
        window = _target_window(source_box, target)
        if window is None:
            continue
        target_box = target.cropped([w.start for w in window], [w.stop - w.start for w in window])
        share = resample((labels[part] == value)[None].astype(np.float32), source_box, target_box, outside=0.0)[0]
        wins = share > best[window]
        best[window][wins] = share[wins]
        result[window][wins] = value
        background[window] -= share
    # Shares are sums of a few float32 weights: a tie with the background within rounding goes to the background.
    result[background >= best - 1e-5] = 0
    return result


def _boxes(labels: NDArray) -> dict[int, tuple[slice, ...]]:
    """The smallest box that holds each non-zero label."""
    boxes: dict[int, list[list[int]]] = {}
    for k, plane in enumerate(labels):
        for value in _values(plane):
            mask = plane == value
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            found = [[k, int(rows[0]), int(columns[0])], [k + 1, int(rows[-1]) + 1, int(columns[-1]) + 1]]
            if value in boxes:
                low, high = boxes[value]
                found = [np.minimum(low, found[0]).tolist(), np.maximum(high, found[1]).tolist()]
            boxes[value] = found
    return {value: tuple(slice(a, b) for a, b in zip(low, high, strict=True)) for value, (low, high) in boxes.items()}


def _values(plane: NDArray) -> list[int]:
    low, high = int(plane.min()), int(plane.max())
    if low >= 0 and high < 65536:
        return [int(value) for value in np.flatnonzero(np.bincount(plane.ravel(), minlength=1)) if value]
    return [int(value) for value in np.unique(plane) if value]


def _target_window(box: Geometry, target: Geometry) -> tuple[slice, slice, slice] | None:
    """The target voxels whose centres lie in the box; None when there are none."""
    corners = np.array(list(itertools.product(*((-1.0, float(size)) for size in box.shape))))
    indices = target.to_indices(box.to_world(corners))
    low = np.maximum(0, np.floor(indices.min(axis=0))).astype(int)
    high = np.minimum(target.shape, np.ceil(indices.max(axis=0)).astype(int) + 1)
    if (low >= high).any():
        return None
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return k, j, i
