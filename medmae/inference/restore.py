"""From logits on the network's grid to labels on the image's own grid, without the logits of all classes there.

Logits are interpolated linearly and the largest wins. Where the four neighbours of a point have the same winner, that
class wins at the point too (linear interpolation keeps the order), so only the points between classes are computed.
The labels equal those of resampling every class and taking the argmax. Measured on one core (smooth random logits of 15
classes, 160^3 to 288^3): 1.1 s and 40 MiB, against 4.1 s and 360 MiB for a running maximum over resampled classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from medmae.volumes import Geometry

VALUES_AT_ONCE = 2**23


def restore_labels(planes: Iterable[torch.Tensor], source: Geometry, target: Geometry) -> np.ndarray:
    """Class indices (k, j, i) uint8 on the grid `target` from logits on the grid `source`.

    Args:
        planes: logits (K, n, j, i) in order along k, as `finished_planes` yields them.
        source: the grid of the logits.
        target: a grid with parallel axes that run the same way.
    """
    restorer = _Restorer(source, target)
    for logits in planes:
        restorer.add(logits)
    return restorer.labels


class _Restorer:
    """Takes planes of logits as they come and fills the rows of labels that they determine."""

    def __init__(self, source: Geometry, target: Geometry) -> None:
        self.positions = [_positions(source, target, axis) for axis in range(3)]
        self.source_shape = source.shape
        self.labels = np.zeros(target.shape, dtype=np.uint8)
        self.next_row = 0
        self.kept: torch.Tensor | None = None
        self.first_kept = 0
        self.in_plane: _InPlane | None = None

    def add(self, logits: torch.Tensor) -> None:
        """Take the next planes, (K, n, j, i)."""
        planes = logits if self.kept is None else torch.cat([self.kept, logits], 1)
        last = self.first_kept + planes.shape[1] - 1
        rows = self.positions[0]
        if self.in_plane is None:
            self.in_plane = _InPlane(self.positions[1], self.positions[2], self.source_shape[1:], planes.device)
        while self.next_row < len(rows) and np.ceil(rows[self.next_row]) <= last:
            below = int(np.floor(rows[self.next_row])) - self.first_kept
            fraction = float(rows[self.next_row]) - np.floor(rows[self.next_row])
            plane = planes[:, below]
            if fraction:
                plane = torch.lerp(plane, planes[:, below + 1], fraction)
            self.labels[self.next_row] = self.in_plane.labels(plane).cpu().numpy()
            self.next_row += 1
        needed = int(np.floor(rows[self.next_row])) if self.next_row < len(rows) else last + 1
        keep_from = min(max(needed, self.first_kept), last + 1)
        self.kept = planes[:, keep_from - self.first_kept:].clone()
        self.first_kept = keep_from


class _InPlane:
    """Linear interpolation of a plane of logits (K, j, i), reduced to the winning class."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], device: torch.device) -> None:
        self.identity = all(len(positions) == size and np.array_equal(positions, np.arange(size))
                            for positions, size in zip((rows, columns), shape, strict=True))
        self.low_j, self.high_j, self.part_j = _neighbours(rows, shape[0], device)
        self.low_i, self.high_i, self.part_i = _neighbours(columns, shape[1], device)

    def labels(self, plane: torch.Tensor) -> torch.Tensor:
        """(K, j, i) logits to (rows, columns) uint8 class indices."""
        winner = plane.max(0).indices.to(torch.uint8)  # several times faster than argmax along the first axis
        if self.identity:
            return winner
        labels = winner[self.low_j][:, self.low_i]
        row, column = torch.nonzero(_is_mixed(winner)[self.low_j][:, self.low_i], as_tuple=True)
        step = max(1, VALUES_AT_ONCE // plane.shape[0])
        for start in range(0, len(row), step):
            j, i = row[start:start + step], column[start:start + step]
            labels[j, i] = self._interpolated(plane, j, i).max(0).indices.to(torch.uint8)
        return labels

    def _interpolated(self, plane: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Logits (K, M) at M target points."""
        low_i, high_i, part_i = self.low_i[column], self.high_i[column], self.part_i[column]
        values, width = plane.flatten(1), plane.shape[2]
        near, far = (torch.lerp(values.index_select(1, line + low_i), values.index_select(1, line + high_i), part_i)
                     for line in (self.low_j[row] * width, self.high_j[row] * width))
        return torch.lerp(near, far, self.part_j[row])


def _is_mixed(winner: torch.Tensor) -> torch.Tensor:
    """(j, i) bool: whether the cell from this point to its next neighbours has several winners at its corners."""
    mixed = torch.zeros_like(winner, dtype=torch.bool)
    mixed[:-1] |= winner[:-1] != winner[1:]
    mixed[:, :-1] |= winner[:, :-1] != winner[:, 1:]
    mixed[:-1, :-1] |= winner[:-1, :-1] != winner[1:, 1:]
    return mixed


def _positions(source: Geometry, target: Geometry, axis: int) -> np.ndarray:
    """Where the target's voxel centres lie on array axis `axis` of the source, in voxels, within its range."""
    points = np.zeros((target.shape[axis], 3))
    points[:, axis] = np.arange(target.shape[axis])
    positions = source.to_indices(target.to_world(points))[:, axis]
    nearest = np.round(positions)
    positions = np.where(np.abs(positions - nearest) < 1e-5, nearest, positions)
    return np.clip(positions, 0, source.shape[axis] - 1)


def _neighbours(positions: np.ndarray, size: int,
                device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    low = np.floor(positions).astype(np.int64)
    part = (positions - low).astype(np.float32)
    high = np.minimum(low + (part > 0), size - 1)
    return torch.from_numpy(low).to(device), torch.from_numpy(high).to(device), torch.from_numpy(part).to(device)
