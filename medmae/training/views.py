"""Cutting a view out of a stored image: position, scale, rotation and flips in one interpolation, outside is zero.

Only the part of the image that the view touches is read, so that a view of a large memory-mapped volume costs its own
size and not the volume's.
"""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name


def cut_view(
    array: np.ndarray,
    centre: np.ndarray,
    matrix: np.ndarray,
    size: tuple[int, ...],
    mode: Literal["linear", "nearest"] = "linear",
) -> torch.Tensor:
    """Sample a view of shape (C, *size) from `array` of shape (C, *spatial) with 2 or 3 spatial axes.

    Output voxel o lies at ``centre + matrix @ (o - (size - 1) / 2)`` in the input's voxel coordinates (array order).
    Voxels outside the input are 0. The result is float32.
    """
    spatial = np.asarray(array.shape[1:])
    half = (np.asarray(size) - 1) / 2
    corners = np.array(list(itertools.product(*[(-h, h) for h in half]))) @ matrix.T + centre
    low = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, spatial)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, spatial)
    if np.any(high <= low):
        return torch.zeros((array.shape[0], *size))
    region = (slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))
    part = torch.from_numpy(np.array(array[region], dtype=np.float32))
    extent = high - low
    # grid_sample wants x, y(, z): the array axes reversed; -1 and 1 are the outer edges of the image
    scale = 2.0 / extent
    theta_matrix = (matrix * half_size(size)[None, :] * scale[:, None])[::-1, ::-1]
    theta_offset = ((centre - low + 0.5) * scale - 1)[::-1]
    theta = torch.from_numpy(np.concatenate([theta_matrix, theta_offset[:, None]], axis=1).astype(np.float32).copy())
    grid = F.affine_grid(theta[None], [1, 1, *size], align_corners=False)
    interpolation = "bilinear" if mode == "linear" else "nearest"
    return F.grid_sample(part[None], grid, mode=interpolation, padding_mode="zeros", align_corners=False)[0]


def half_size(size: tuple[int, ...]) -> np.ndarray:
    """Half the number of voxels along each axis: what one unit of affine_grid's coordinates spans."""
    return np.asarray(size, np.float64) / 2


def random_centre(
    array: np.ndarray, extent: np.ndarray, generator: np.random.Generator, foreground_tries: int = 16
) -> np.ndarray:
    """A random centre for a view that covers `extent` voxels of `array` (C, *spatial), preferring non-empty places.

    Of `foreground_tries` random voxels the first that is brighter than their mean is taken, then the view is moved
    inside the image where it fits; where it does not fit it is centred, with a jitter of an eighth.
    """
    spatial = np.asarray(array.shape[1:], np.float64)
    points = np.floor(generator.random((foreground_tries, len(spatial))) * spatial).astype(int)
    values = np.array([float(array[(0, *point)]) for point in points])
    above = np.flatnonzero(values > values.mean())
    point = points[above[0] if len(above) else 0].astype(np.float64)
    jitter = (generator.random(len(spatial)) - 0.5) * extent / 8
    inside = np.clip(point, (extent - 1) / 2, np.maximum((extent - 1) / 2, spatial - 1 - (extent - 1) / 2))
    return np.where(extent >= spatial, (spatial - 1) / 2 + jitter, inside)


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """A rotation in array axes: one angle (radians) for 2-D, three (about axis 0, 1, 2 in turn) for 3-D."""
    if len(angles) == 1:
        cosine, sine = np.cos(angles[0]), np.sin(angles[0])
        return np.array([[cosine, -sine], [sine, cosine]])
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        rotation = np.eye(3)
        first, second = [other for other in range(3) if other != axis]
        rotation[first, first] = rotation[second, second] = np.cos(angle)
        rotation[first, second], rotation[second, first] = -np.sin(angle), np.sin(angle)
        result = result @ rotation
    return result
