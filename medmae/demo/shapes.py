"""Implicit shapes: approximate signed distances in mm (negative inside) that organs are composed of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.floating[Any]]
"""A value at every voxel, ``(k, j, i)`` or (rows, columns)."""


def ellipsoid(points: Sequence[Field], centre: Sequence[float], radii: Sequence[float],
              turn_degrees: Sequence[float] = ()) -> Field:
    """Distance to an ellipsoid (an ellipse for two coordinates), to first order.

    Args:
        points: the coordinates (x, y, z) or (x, y) of every voxel in mm.
        centre: in mm.
        radii: in mm, along the ellipsoid's own axes.
        turn_degrees: rotations about z, y and x (for two coordinates: one), applied in that order.
    """
    local = rotated([point - float(c) for point, c in zip(points, centre, strict=True)], turn_degrees)
    scaled = [p / float(r) for p, r in zip(local, radii, strict=True)]
    level = np.sqrt(sum(p**2 for p in scaled))
    slope = np.sqrt(sum((p / float(r)) ** 2 for p, r in zip(scaled, radii, strict=True)))
    tiny = 1e-6  # at the very centre both vanish; the distance there is the smallest radius
    return ((level - 1) * (level + tiny) / (slope + tiny / min(radii))).astype(np.float32)


def rotated(local: list[Field], turn_degrees: Sequence[float]) -> list[Field]:
    """Turn coordinates about z, then y, then x (two coordinates: within their plane)."""
    for angle, (first, second) in zip(turn_degrees, ((0, 1), (0, 2), (1, 2)), strict=False):
        cosine, sine = float(np.cos(np.radians(angle))), float(np.sin(np.radians(angle)))  # keeps float32
        a, b = local[first], local[second]
        local[first], local[second] = cosine * a + sine * b, cosine * b - sine * a
    return local


def capsule(points: Sequence[Field], start: Sequence[float], end: Sequence[float], radius: float) -> Field:
    """Distance to a straight tube with round ends, any number of coordinates."""
    axis = np.subtract(end, start).astype(float)
    length2 = float(axis @ axis)
    along = sum((p - s) * a for p, s, a in zip(points, start, axis, strict=True)) / length2
    along = np.clip(along, 0, 1)
    squared = sum((p - s - along * a) ** 2 for p, s, a in zip(points, start, axis, strict=True))
    return (np.sqrt(squared) - radius).astype(np.float32)


def union(first: Field, second: Field, blend_mm: float = 0.0) -> Field:
    """Both shapes together; a positive `blend_mm` rounds the seam (polynomial smooth minimum)."""
    if blend_mm <= 0:
        return np.minimum(first, second)
    mix = np.clip(0.5 + 0.5 * (second - first) / blend_mm, 0, 1)
    return second + (first - second) * mix - blend_mm * mix * (1 - mix)


def common(first: Field, second: Field, blend_mm: float = 0.0) -> Field:
    """What both shapes share."""
    return -union(-first, -second, blend_mm)


def without(first: Field, second: Field, blend_mm: float = 0.0) -> Field:
    """The first shape with the second cut away."""
    return common(first, -second, blend_mm)


def coverage(distance: Field, voxel_mm: float) -> Field:
    """The share of a voxel inside the shape, 0..1: the partial volume effect."""
    return np.clip(0.5 - distance / voxel_mm, 0, 1).astype(np.float32)


def smooth_noise(shape: Sequence[int], knots: Sequence[int], random: np.random.Generator) -> Field:
    """A smooth random field of about unit variance: cubic interpolation of normal values at a few knots an axis."""
    from scipy.interpolate import CubicSpline

    values = random.standard_normal(tuple(k + 3 for k in knots)).astype(np.float32)
    for axis, (knot_count, size) in enumerate(zip(knots, shape, strict=True)):  # separable: one axis at a time
        spline = CubicSpline(np.arange(values.shape[axis]), values, axis=axis)
        values = spline(np.linspace(1, knot_count + 1, size)).astype(np.float32)
    return values / np.float32(0.75)
