"""One read for all views of a volume: a block of it, kept in half precision, from which views are cut where the network
computes.

A loader copies one region of the memory-mapped volume and draws where each view lies in it; what travels to a GPU is
the block, not the views. Axes are (k, j, i), places are in voxels of the block (0 is the middle of its first voxel).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

PROBES = 256  # voxels at which a volume is looked at to find its foreground; a page fault each on a cold disk


def block_extents(shapes: NDArray[np.int64], reach: NDArray[np.float64], factor: float) -> NDArray[np.int64]:
    """How much of each volume is read: `factor` times what its largest view covers, or all of an axis that is shorter.

    Args:
        shapes: (items, 3) voxels of the volumes.
        reach: (items, 3) voxels of the volume that its largest view covers.
        factor: at least 1; larger blocks let the views of a volume lie further apart, and cost more to read.
    """
    return np.minimum(shapes, np.ceil(np.maximum(reach, 1) * factor).astype(np.int64))


def foreground_point(array: np.ndarray, generator: np.random.Generator, probes: int = PROBES) -> NDArray[np.int64]:
    """A voxel (3,) of `array` (C, k, j, i): among random ones, the more likely the further above their mean it lies.

    Weighing by brightness rather than drawing evenly above the mean finds a small bright region in noise more often.
    """
    spatial = np.array(array.shape[1:])
    points = np.floor(generator.random((probes, 3)) * spatial).astype(np.int64)
    values = np.asarray(array[0, points[:, 0], points[:, 1], points[:, 2]], np.float64)
    reached = np.cumsum(np.maximum(values - values.mean(), 0))
    chosen = generator.random()  # drawn in any case, so that what follows does not depend on the values
    return points[int(np.searchsorted(reached, chosen * reached[-1])) if reached[-1] > 0 else 0]


def block_corner(array: np.ndarray, extent: np.ndarray, generator: np.random.Generator) -> NDArray[np.int64]:
    """The first voxel (3,) of a block of `extent` voxels around a foreground point of `array`, wholly inside it."""
    room = np.array(array.shape[1:]) - extent
    if not room.any():
        return np.zeros(3, np.int64)
    return np.clip(foreground_point(array, generator) - extent // 2, 0, room)


def draw_place(block: np.ndarray, size: tuple[int, ...], step: np.ndarray, generator: np.random.Generator,
               whole_voxels: bool) -> NDArray[np.float64]:
    """The centre (3,) of a view of `size` voxels, each `step` voxels of `block` (C, k, j, i) apart.

    It lies at a foreground point, moved so that the view is inside the block where it fits. Along an axis where it
    does not fit it is centred, up to a sixteenth of the view to either side.

    Args:
        block: what was read.
        size: voxels of the view.
        step: (3,), positive.
        generator: draws the place.
        whole_voxels: every voxel of the view falls on one of the block (for steps of 1: nothing is interpolated).
    """
    extent = np.array(block.shape[1:], np.float64)
    reach = (np.array(size) - 1) * step  # from the middle of the first voxel to the middle of the last
    point = foreground_point(block, generator).astype(np.float64)
    jitter = (generator.random(3) - 0.5) * np.array(size) * step / 8
    first = np.clip(point - reach / 2, 0, np.maximum(0, extent - 1 - reach))
    first = np.where(reach > extent - 1, (extent - 1 - reach) / 2 + jitter, first)
    return (np.round(first) if whole_voxels else first) + reach / 2


def outside_tokens(extent: np.ndarray, place: np.ndarray, size: tuple[int, ...], grid: tuple[int, ...]) -> tuple[
        NDArray[np.bool_], float]:
    """Which tokens of a view (k, j, i of `grid`) lie wholly outside the image, and which share of its voxels does.

    Args:
        extent: (3,) voxels of the block; only blocks of whole axes have an outside that views reach.
        place: (2, 3) centre and signed step.
        size: voxels of the view.
        grid: its tokens.
    """
    outside, inside_share = np.zeros(grid, bool), 1.0
    for axis, (length, tokens) in enumerate(zip(size, grid, strict=True)):
        positions = place[0, axis] + place[1, axis] * (np.arange(length) - (length - 1) / 2)
        beyond = (positions <= -1) | (positions >= extent[axis])  # further than interpolation reaches
        inside_share *= 1 - float(beyond.mean())
        along = beyond.reshape(tokens, -1).all(1)
        outside |= along.reshape([-1 if other == axis else 1 for other in range(3)])
    return outside, 1 - inside_share


def cut_views(blocks: torch.Tensor, places: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Cut views of one size out of blocks by linear interpolation, on the device that holds them; outside a block is 0.

    Views are parallel to the axes, so that each axis is interpolated by itself. On a processor that takes a fifth of
    the time of ``grid_sample`` for the views of the tiny preset and two thirds for those of base (one thread), and a
    view whose voxels fall on those of the block takes them over to the last bit. No step waits for the device.

    Args:
        blocks: (B, C, k, j, i), zeros behind what was read.
        places: (B, V, 2, 3) float32: centre of each view and its signed step, in voxels of the block.
        size: voxels of a view.

    Returns:
        (B, V, C, *size) float32.
    """
    with torch.no_grad(), torch.autocast(blocks.device.type, enabled=False):
        axes = [_neighbours(_positions(places, axis, length), blocks.shape[2 + axis])
                for axis, length in enumerate(size)]
        views = torch.empty((*places.shape[:2], blocks.shape[1], *size), device=blocks.device)
        for number, block in enumerate(blocks):
            for view in range(places.shape[1]):
                part = block
                for axis, (indices, weights) in enumerate(axes, start=1):
                    shape = [-1 if axis == other else 1 for other in range(4)]
                    lower, upper = (part.index_select(axis, indices[side, number, view]).float() for side in (0, 1))
                    part = lower.mul_(weights[0, number, view].view(shape)).addcmul_(
                        upper, weights[1, number, view].view(shape))
                views[number, view] = part
        return views


def vary_intensities(views: torch.Tensor, factors: torch.Tensor, places: torch.Tensor,
                     extents: torch.Tensor) -> torch.Tensor:
    """Contrast times a factor plus a shift, inside the image only: padding stays 0, as it is in inference.

    Args:
        views: (B, V, C, *size), changed in place.
        factors: (B, V, 2) contrast factor and brightness shift.
        places: (B, V, 2, 3) as for `cut_views`.
        extents: (B, 3) voxels that were read of each volume.
    """
    with torch.no_grad():
        shift = factors[:, :, 1]
        inside = shift[:, :, None, None, None, None]
        for axis, length in enumerate(views.shape[3:]):
            positions = _positions(places, axis, length)
            within = (positions > -1) & (positions < extents[:, None, None, axis])
            inside = inside * within.reshape(*within.shape[:2], 1, *[-1 if axis == other else 1 for other in range(3)])
        return views.mul_(factors[:, :, 0, None, None, None, None]).add_(inside)


def _positions(places: torch.Tensor, axis: int, length: int) -> torch.Tensor:
    """Where the voxels of views lie along an axis of their block: (B, V, length)."""
    offsets = torch.arange(length, device=places.device, dtype=torch.float32) - (length - 1) / 2
    return places[:, :, 0, axis, None] + places[:, :, 1, axis, None] * offsets


def _neighbours(positions: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two voxels between which each position of (B, V, L) lies: indices and weights (2, B, V, L), outside 0."""
    below = positions.floor()
    share = positions - below
    indices = torch.stack([below, below + 1])
    weights = torch.stack([1 - share, share]) * ((indices >= 0) & (indices < length))
    return indices.clamp(0, length - 1).long(), weights
