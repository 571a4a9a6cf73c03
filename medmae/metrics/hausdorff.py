"""The 95 % Hausdorff distance between the surfaces of two structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def hd95_mm(reference: NDArray, prediction: NDArray, spacing_mm: Sequence[float] | None) -> float | None:
    """Larger of the two directed 95th percentiles of surface distances between two masks (k, j, i), in mm.

    The surface is the set of voxels with a neighbour (across a face) outside the structure or at the border of the
    image; in a single slice only the neighbours in its plane count. This is the definition of MONAI and of Metrics
    Reloaded. Exact: nearest neighbours are searched in a k-d tree of surface points, which on a 512x512x200 volume is
    far quicker than distance maps of the whole grid.

    Returns:
        None where either mask is empty or `spacing_mm` is None (unknown).

    Raises:
        ValueError: the shapes differ.
    """
    from scipy.spatial import cKDTree

    if reference.shape != prediction.shape:
        raise ValueError(f"The reference has the shape {reference.shape}, the prediction {prediction.shape}.")
    reference, prediction = reference.astype(bool, copy=False), prediction.astype(bool, copy=False)
    if spacing_mm is None or not reference.any() or not prediction.any():
        return None
    first, second = (surface_points(mask) * np.asarray(spacing_mm, dtype=float) for mask in (reference, prediction))
    there, _ = cKDTree(second).query(first)
    back, _ = cKDTree(first).query(second)
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def hd95_per_label(reference: NDArray, prediction: NDArray, labels: Mapping[str, int],
                   spacing_mm: Sequence[float] | None) -> dict[str, float | None]:
    """``hd95_mm`` of each label (name to stored value) in two label maps (k, j, i)."""
    if spacing_mm is None:
        return dict.fromkeys(labels)
    return {name: hd95_mm(reference == value, prediction == value, spacing_mm) for name, value in labels.items()}


def surface_points(mask: NDArray) -> NDArray[np.int64]:
    """Indices (points, 3) of the surface voxels of a mask that is not empty."""
    from scipy.ndimage import binary_erosion, generate_binary_structure

    box = tuple(_extent(mask, axis) for axis in range(mask.ndim))
    inside = mask[box]
    # An axis of a single voxel has no neighbours at all: a 2-D image would otherwise be all surface.
    flat = tuple(axis for axis in range(mask.ndim) if mask.shape[axis] == 1)
    plane = np.squeeze(inside, axis=flat)
    if plane.ndim:
        plane = plane & ~binary_erosion(plane, generate_binary_structure(plane.ndim, 1))
    return np.argwhere(np.expand_dims(plane, flat)) + np.array([edge.start for edge in box])


def _extent(mask: NDArray, axis: int) -> slice:
    others = tuple(other for other in range(mask.ndim) if other != axis)
    occupied = np.flatnonzero(mask.any(axis=others))
    return slice(int(occupied[0]), int(occupied[-1]) + 1)
