"""Sampling an image on another grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.volumes.geometry import Geometry

# Coordinates this close to a voxel centre are taken as the centre, so that rounding in affines does not blur.
_SNAP_VOXELS = 1e-4
# Oblique downsampling is smoothed on a coarser grid first when it skips more than this many voxels per step.
_OBLIQUE_SMOOTHING_STEP = 1.25


def resampled_geometry(geometry: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The grid with exactly `spacing_mm` (k, j, i), the same directions and centre, and the nearest field of view."""
    old, new = np.array(geometry.spacing_mm), np.array(spacing_mm, float)
    if new.shape != (3,) or not (new > 0).all():
        raise ValueError(f"spacing_mm must be three positive numbers (k, j, i), not {spacing_mm}.")
    shape = np.maximum(1, np.rint(np.array(geometry.shape) * old / new)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = geometry.direction * new[::-1]
    affine[:3, 3] = geometry.center_mm - affine[:3, :3] @ ((shape[::-1] - 1) / 2)
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def resample(array: NDArray, source: Geometry, target: Geometry, order: int = 1, *,
             outside: float | None = None) -> NDArray:
    """Sample an image at the voxels of another grid.

    Linear, with the width of the kernel grown to the target voxel where the target is coarser (no aliasing). Grids that
    share voxel centres are copied exactly. Between the outermost voxel centres and the edge of the field of view the
    edge voxel is repeated.

    Args:
        array: (C, k, j, i) on the grid `source`.
        source: the grid of `array`; may be turned, flipped or oblique to `target`.
        target: the grid of the result.
        order: 1 linear, 0 nearest voxel.
        outside: value of voxels outside the source's field of view; None: the minimum of their channel.

    Returns:
        (C, k, j, i) on the grid `target`; float32 (float64 stays), with order 0 the type of `array`.
    """
    if order not in (0, 1):
        raise ValueError(f"order must be 0 (nearest) or 1 (linear), not {order}.")
    if array.ndim != 4 or array.shape[1:] != source.shape:
        raise ValueError(f"Array {array.shape} does not fit the grid {source.shape}; it must be (C, k, j, i).")
    kind = array.dtype if order == 0 or array.dtype == np.float64 else np.dtype(np.float32)
    placement = placement_of(source, target)
    fill = float(outside) if outside is not None else None

    def one(image: NDArray) -> NDArray:
        return _resample_one(image.astype(kind, copy=False), source, target, placement, order, fill)

    if len(array) == 1:  # without a second copy of the result
        single = np.ascontiguousarray(one(array[0]))
        return (single.copy() if np.may_share_memory(single, array) else single)[None]
    result = np.empty((array.shape[0], *target.shape), kind)
    for channel, image in enumerate(array):
        result[channel] = one(image)
    return result


@dataclass(frozen=True)
class Placement:
    """Where target voxels fall in the source: source index = matrix @ target index + offset, all (k, j, i)."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    axes: tuple[int, int, int] | None
    """For each source axis the target axis it runs along; None when the grids are oblique to each other."""


def placement_of(source: Geometry, target: Geometry) -> Placement:
    """Relate two grids; axes that deviate by less than a hundredth of a voxel over the grid count as parallel."""
    inverse = np.linalg.inv(source.affine)
    both = inverse @ target.affine
    matrix, offset = both[:3, :3][::-1, ::-1], both[:3, 3][::-1]
    axes = np.abs(source.direction.T @ target.direction)[::-1, ::-1].argmax(axis=1)
    rest = np.abs(matrix) * (np.array(target.shape) - 1)
    rest[np.arange(3), axes] = 0
    parallel = len(set(axes.tolist())) == 3 and rest.sum(axis=1).max() < 0.01
    return Placement(matrix, offset, (int(axes[0]), int(axes[1]), int(axes[2])) if parallel else None)


def _resample_one(image: NDArray, source: Geometry, target: Geometry, placement: Placement, order: int,
                  fill: float | None) -> NDArray:
    if placement.axes is not None:
        return _resample_parallel(image, target, placement, order, fill)
    sampled = placement
    step = np.linalg.norm(placement.matrix, axis=1)
    shape = image.shape
    if order == 1 and step.max() > _OBLIQUE_SMOOTHING_STEP:
        if fill is None:
            fill = float(image.min())
        coarse = resampled_geometry(source, np.array(source.spacing_mm) * np.maximum(1, step))
        image = _resample_parallel(image, coarse, placement_of(source, coarse), order, fill)
        sampled = placement_of(coarse, target)
    result = _resample_oblique(image, target, sampled, order)
    _fill_outside(result, shape, placement, image, fill)
    return result


# --- grids with parallel axes: one axis after the other --------------------------------------------------------------


@dataclass(frozen=True)
class Taps:
    """One axis: target voxel n is the sum over t of weights[n, t] * source[indices[n, t]]."""

    indices: NDArray[np.intp]
    weights: NDArray[np.float64]
    inside: NDArray[np.bool_]

    @property
    def is_copy(self) -> bool:
        """Whether every voxel of the result is a voxel of the source."""
        return self.indices.shape[1] == 1


def _resample_parallel(image: NDArray, target: Geometry, placement: Placement, order: int,
                       fill: float | None) -> NDArray:
    assert placement.axes is not None
    order_of_axes = placement.axes
    taps = parallel_taps(image.shape, target, placement, order)
    if fill is None and not all(tap.inside.all() for tap in taps):
        fill = float(image.min())
    for axis in sequence_of_axes(image.shape, taps):
        image = _apply_taps(image, axis, taps[axis])
    for axis, tap in enumerate(taps):
        if fill is not None and not tap.inside.all():
            image = image if image.flags.writeable and image.base is None else image.copy()
            np.moveaxis(image, axis, 0)[~tap.inside] = fill
    return image.transpose(np.argsort(order_of_axes))


def parallel_taps(shape: Sequence[int], target: Geometry, placement: Placement, order: int = 1) -> list[Taps]:
    """For each axis of a source (k, j, i) of size `shape`, what the voxels of a parallel target are made of."""
    assert placement.axes is not None
    taps = []
    for axis, target_axis in enumerate(placement.axes):
        step = placement.matrix[axis, target_axis]
        # The tiny slant that still counts as parallel is taken at the middle of the grid.
        middle = sum(placement.matrix[axis, other] * (target.shape[other] - 1) / 2
                     for other in range(3) if other != target_axis)
        coordinates = placement.offset[axis] + middle + step * np.arange(target.shape[target_axis])
        taps.append(_taps(coordinates, abs(step), shape[axis], order))
    return taps


def sequence_of_axes(shape: Sequence[int], taps: Sequence[Taps]) -> list[int]:
    """The order in which axes are resampled: the one that shrinks most first, to leave less work for the others."""
    return sorted(range(3), key=lambda axis: len(taps[axis].indices) / shape[axis])


def _taps(coordinates: NDArray[np.float64], step: float, size: int, order: int) -> Taps:
    nearest = np.rint(coordinates)
    coordinates = np.where(np.abs(coordinates - nearest) < _SNAP_VOXELS, nearest, coordinates)
    inside = (coordinates >= -0.5 - _SNAP_VOXELS) & (coordinates <= size - 0.5 + _SNAP_VOXELS)
    width = max(1.0, step) if step > 1 + _SNAP_VOXELS else 1.0
    if order == 0 or (width == 1.0 and (coordinates == np.rint(coordinates)).all()):
        indices = np.clip(np.rint(coordinates), 0, size - 1).astype(np.intp)[:, None]
        return Taps(indices, np.ones(indices.shape), inside)
    first = np.floor(coordinates - width).astype(np.intp) + 1
    count = int(np.ceil(2 * width)) if width > 1 else 2
    positions = first[:, None] + np.arange(count)
    weights = np.maximum(0, 1 - np.abs(positions - coordinates[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    return Taps(np.clip(positions, 0, size - 1), weights, inside)


def _apply_taps(image: NDArray, axis: int, taps: Taps) -> NDArray:
    """Resample one axis slice by slice, so that temporary arrays stay in the processor's cache."""
    size = image.shape[axis]
    if taps.is_copy:
        indices = taps.indices[:, 0]
        return image if np.array_equal(indices, np.arange(size)) else np.take(image, indices, axis=axis)
    shape = list(image.shape)
    shape[axis] = len(taps.indices)
    result = np.empty(shape, image.dtype)
    weights = taps.weights.astype(image.dtype)
    if axis == 0:
        _weighted_slices(image, result, taps.indices, weights)
        return result
    expanded = [weights[:, t, None] if axis == 1 else weights[:, t] for t in range(weights.shape[1])]
    for plane in range(image.shape[0]):
        out, part = result[plane], image[plane]
        np.multiply(np.take(part, taps.indices[:, 0], axis=axis - 1), expanded[0], out=out)
        for t in range(1, len(expanded)):
            # A voxel of weight 0 must not count even when it is infinite or not a number.
            out += np.where(expanded[t] == 0, 0, np.take(part, taps.indices[:, t], axis=axis - 1) * expanded[t])
    return result


def _weighted_slices(image: NDArray, result: NDArray, indices: NDArray[np.intp], weights: NDArray) -> None:
    for n in range(len(indices)):
        used = np.flatnonzero(weights[n])
        np.multiply(image[indices[n, used[0]]], weights[n, used[0]], out=result[n])
        for t in used[1:]:
            result[n] += image[indices[n, t]] * weights[n, t]


# --- oblique grids ---------------------------------------------------------------------------------------------------


def _resample_oblique(image: NDArray, target: Geometry, placement: Placement, order: int) -> NDArray:
    from scipy import ndimage

    result = np.empty(target.shape, image.dtype)
    ndimage.affine_transform(image, placement.matrix, placement.offset, output_shape=result.shape, output=result,
                             order=order, mode="nearest", prefilter=False)
    return result


def _fill_outside(result: NDArray, source_shape: tuple[int, ...], placement: Placement, image: NDArray,
                  fill: float | None) -> None:
    """Set the voxels of `result` that lie outside the source's field of view, slice by slice to spare memory."""
    rows, columns = np.arange(result.shape[1])[:, None], np.arange(result.shape[2])
    planes = [line[1] * rows + line[2] * columns for line in placement.matrix]
    for k, plane in enumerate(result):
        outside = np.zeros(plane.shape, bool)
        for axis in range(3):
            coordinate = planes[axis] + (placement.matrix[axis, 0] * k + placement.offset[axis])
            outside |= (coordinate < -0.5) | (coordinate > source_shape[axis] - 0.5)
        if outside.any():
            fill = float(image.min()) if fill is None else fill
            plane[outside] = fill
