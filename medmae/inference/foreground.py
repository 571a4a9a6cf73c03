"""Where in an image there is something to segment: the body in a CT, what stands out from the background elsewhere.

Everything is decided on a coarse grid of sampled voxels, so that it takes a moment whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmae.inference.region import Region
from medmae.volumes import Geometry, Volume

CELL_MM = 4.0  # side of a coarse cell; a body part thinner than that may be missed but for the margin
MARGIN_MM = 12.0
BODY_ABOVE_HU = -500.0
AIR_HU = -950.0  # the mean of AROUND_MM of air is below, that of lungs above
AROUND_MM = 12.0
SPECK_MM3 = 500.0  # smaller parts are noise, wires or sheets
BOARD_MM = 250.0  # tables are at least that wide, wider than hands, feet or animals that lie apart
LIMB_MM = 28.0  # and thinner than that, which arms and legs are not
BACKGROUND_SHARE = 0.1  # of the outer faces of an image that has a constant background


@dataclass(frozen=True, eq=False)
class Foreground:
    """A coarse map of where there is something in an image.

    Attributes:
        cells: (k, j, i) bool, with a margin around what was found.
        step: voxels of the image, in its stored axes, to a cell along each axis.
        geometry: the image's grid.
    """

    cells: NDArray[np.bool_]
    step: tuple[int, int, int]
    geometry: Geometry

    @property
    def region(self) -> Region:
        """The smallest box of the image that holds all of it."""
        lower, upper = [], []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            used = np.flatnonzero(self.cells.any(axis=others))
            lower.append(int(used[0]) * self.step[axis])
            upper.append(min(self.geometry.shape[axis], (int(used[-1]) + 1) * self.step[axis]))
        return Region((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))

    def is_empty(self, grid: Geometry, start: Sequence[int], shape: Sequence[int]) -> bool:
        """Whether there is nothing in the box of `shape` voxels at `start` (k, j, i) of another grid.

        The box may reach beyond the image; beyond it there is nothing. Oblique boxes count with their bounding box.
        """
        low, high = np.array(start) - 0.5, np.array(start) + np.array(shape) - 0.5
        corners = np.array([[(low, high)[bit >> axis & 1][axis] for axis in range(3)] for bit in range(8)])
        indices = (self.geometry.to_indices(grid.to_world(corners)) + 0.5) / self.step
        first = np.maximum(np.floor(indices.min(0) + 1e-6).astype(int), 0)
        stop = np.minimum(np.ceil(indices.max(0) - 1e-6).astype(int), self.cells.shape)
        k, j, i = (slice(begin, end) for begin, end in zip(first, stop, strict=True))
        return not (first < stop).all() or not bool(self.cells[k, j, i].any())


def foreground(volume: Volume, modality: str) -> Foreground | None:
    """The coarse map of the foreground of an image; None where there is none to tell, so that all of it counts.

    CT: the body, from its skin on; the air in it belongs to it, the table does not where it is apart. Other images:
    what differs from the darkest value, which must be constant (masked or padded images), and what that encloses; when
    in doubt, everything.

    Args:
        volume: the image; of several channels, what any of them shows.
        modality: its DICOM code.
    """
    step = _steps(volume.geometry)
    if modality.strip().upper() == "CT":
        cells = _body(volume, step)
    else:
        cells = _with_enclosed(np.logical_or.reduce([_not_constant(channel, step) for channel in volume.array]))
    if not cells.any():
        return None
    cell_mm = np.multiply(step, volume.geometry.spacing_mm)
    found = Foreground(_grown(cells, MARGIN_MM, cell_mm), step, volume.geometry)
    return None if found.cells.all() else found


def foreground_region(volume: Volume, modality: str) -> Region | None:
    """The smallest box that holds the foreground of an image, with a margin; None: all of the image."""
    found = foreground(volume, modality)
    return None if found is None or found.region.covers(volume.geometry) else found.region


def _steps(geometry: Geometry) -> tuple[int, int, int]:
    k, j, i = (max(1, min(size, int(CELL_MM / spacing)))
               for size, spacing in zip(geometry.shape, geometry.spacing_mm, strict=True))
    return k, j, i


def _body(volume: Volume, step: Sequence[int]) -> NDArray[np.bool_]:
    """What is above `BODY_ABOVE_HU` but specks and tables, lungs even where the image cuts them, and what is enclosed.
    """
    from scipy import ndimage

    # Two voxels of every cell, one at each end, tell tissue from air; a cell counts as soon as one is tissue.
    samples = [_sampled(channel, step, offset) for channel in volume.array for offset in (0, 1)]
    solid = np.logical_or.reduce([sample > BODY_ABOVE_HU for sample in samples])
    if not solid.any():
        return solid
    cell_mm = np.multiply(step, volume.geometry.spacing_mm)
    axis = _axial_axis(volume.geometry)
    body = _without_tables(solid, axis, cell_mm)
    density = np.mean([np.clip(np.nan_to_num(sample.astype(np.float32), nan=-1000), -1000, BODY_ABOVE_HU)
                       for sample in samples], axis=0)
    density[_grown(solid & ~body, cell_mm.min(), cell_mm)] = -1000  # partial volume around tables
    body |= ndimage.uniform_filter(density, [2 * int(AROUND_MM / 2 / side) + 1 for side in cell_mm]) > AIR_HU
    for plane in np.moveaxis(body, axis, 0):
        plane[...] = _with_enclosed(plane)
    return body


def _without_tables(solid: NDArray[np.bool_], axial: int, cell_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The largest connected part, and others unless they are as small as specks or as wide and thin as boards."""
    from scipy import ndimage

    parts, count = ndimage.label(solid)
    cells = np.bincount(parts.ravel(), minlength=count + 1)
    thick = np.bincount(parts[_shrunk(solid, LIMB_MM / 2, cell_mm)], minlength=count + 1) > 0
    in_plane = [axis for axis in range(3) if axis != axial]
    wide = [max((box[axis].stop - box[axis].start) * cell_mm[axis] for axis in in_plane) >= BOARD_MM
            for box in ndimage.find_objects(parts)]
    kept = (thick | ~np.array([False, *wide])) & (cells * np.prod(cell_mm) >= SPECK_MM3)
    kept[0] = False
    kept[1 + cells[1:].argmax()] = True
    return kept[parts]


def _with_enclosed(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With all that is not connected to a corner: gas or lungs at the edge of a narrow image are not outside of it."""
    from scipy import ndimage

    parts, _ = ndimage.label(~cells)
    corners = parts[np.ix_(*[[0, -1]] * cells.ndim)]
    return ~np.isin(parts, corners[corners > 0])


def _axial_axis(geometry: Geometry) -> int:
    """The array axis that runs most along the body."""
    return 2 - int(np.abs(geometry.direction[2]).argmax())


def _not_constant(channel: NDArray, step: Sequence[int]) -> NDArray[np.bool_]:
    """Cells with anything but the background of a channel (k, j, i), all of them where it has none that is constant.

    The background is the least value, where a good part of the voxels on the outer faces have exactly it:
    padding and masks do, noise does not. Every voxel is looked at, so nothing that differs is overlooked.
    """
    everything = np.ones([-(-size // by) for size, by in zip(channel.shape, step, strict=True)], bool)
    faces = np.concatenate([channel[0].ravel(), channel[-1].ravel(), channel[:, 0].ravel(), channel[:, -1].ravel(),
                            channel[:, :, 0].ravel(), channel[:, :, -1].ravel()])
    faces = faces[np.isfinite(faces)]
    if not faces.size:
        return everything
    background = faces.min()
    if (faces == background).mean() < BACKGROUND_SHARE:
        return everything
    cells = np.zeros_like(everything)
    rows, columns = np.arange(0, channel.shape[1], step[1]), np.arange(0, channel.shape[2], step[2])
    for index, plane in enumerate(channel):
        differs = (plane != background) & np.isfinite(plane)
        differs = np.logical_or.reduceat(np.logical_or.reduceat(differs, rows, 0), columns, 1)
        cells[index // step[0]] |= differs
    return cells


def _sampled(channel: NDArray, step: Sequence[int], offset: int) -> NDArray:
    """One voxel of every cell of a channel (k, j, i), `offset` halves of a cell from its first corner."""
    picked = [np.minimum(np.arange(0, size, by) + offset * (by // 2), size - 1)
              for size, by in zip(channel.shape, step, strict=True)]
    return channel[np.ix_(*picked)]


def _grown(cells: NDArray[np.bool_], margin_mm: float, cell_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """With a margin on all sides, along one axis after the other."""
    for axis in range(3):
        grown = cells.copy()
        for shift in range(1, min(int(np.ceil(margin_mm / cell_mm[axis])), cells.shape[axis] - 1) + 1):
            ahead, behind = [slice(None)] * 3, [slice(None)] * 3
            ahead[axis], behind[axis] = slice(shift, None), slice(None, -shift)
            grown[tuple(ahead)] |= cells[tuple(behind)]
            grown[tuple(behind)] |= cells[tuple(ahead)]
        cells = grown
    return cells


def _shrunk(cells: NDArray[np.bool_], margin_mm: float, cell_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Without what is nearer to the outside than a margin; what is cut off by the edge of the image goes on there."""
    return ~_grown(~cells, margin_mm, cell_mm)
