"""From features on the network's grid to labels on the image's own grid, without the logits of all classes there.

Features are interpolated linearly, the head makes logits of them, and the largest wins: the labels equal those of
resampling every class and taking the argmax, because the head is linear. Where the corners of a cell have the same
winner, that class wins everywhere in the cell (linear interpolation keeps the order), so only points in cells between
classes are computed, a bounded number at a time. Rows are written into the result as soon as they are determined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from medmae.datasets.prepared import Prepared
from medmae.errors import BadInput
from medmae.inference.outputs.confidence import Confidence
from medmae.networks.voxel_head import DISAGREE, VoxelHead, largest
from medmae.volumes import Geometry

RowSink = Callable[[int, torch.Tensor], None]
VALUES_AT_ONCE = 2**21  # features and logits of the points that are interpolated together
LERP_ALL_FROM = 8  # from every eighth point on it is faster to interpolate all of a plane along k than single points
ROWS_AT_ONCE = 16  # written together: where rows lie across the stored axes that is five times as fast as one by one
MIXED = DISAGREE  # in place of a class: several may win here


@runtime_checkable
class PlacedSink(Protocol):
    """A `RowSink` that is told first where in the image its rows lie."""

    def begin(self, prepared: Prepared) -> None:
        """Rows of ``prepared.target`` follow, in order."""

    def __call__(self, row: int, logits: torch.Tensor) -> None:
        """Take the logits (K, j, i) float32 of a row."""


def restore_labels(planes: Iterable[torch.Tensor], head: VoxelHead, source: Geometry, target: Geometry,
                   labels: np.ndarray, values: np.ndarray, *, sink: RowSink | None = None,
                   confidence: Confidence | None = None) -> None:
    """Fill `labels` on the grid `target` from features on the grid `source`.

    Args:
        planes: features (F, n, j, i) float32 in order along k, as `finished_planes` yields them.
        head: from features to logits.
        source: the grid of the planes.
        target: a grid with parallel axes that run the same way; points beyond `source` take its border.
        labels: (k, j, i), written row by row; may be a view of a larger array in any order of axes.
        values: the stored value of each class.
        sink: takes (number of the row along k, its logits (K, j, i) float32) of every row. They are computed in full
            only for it.
        confidence: takes every plane.

    Raises:
        BadInput: a feature is not a number.
    """
    restorer = _Restorer(head, source, target, labels, values, sink, confidence)
    for part in planes:
        for plane in part.unbind(1):
            restorer.add(plane)
    restorer.flush()


def covering_box(source: Geometry, target: Geometry) -> tuple[slice, slice, slice]:
    """The voxels of `source` that interpolation at the voxels of `target` needs."""
    positions = [_positions(source, target, axis) for axis in range(3)]
    k, j, i = (slice(int(np.floor(axis.min())), int(np.ceil(axis.max())) + 1) for axis in positions)
    return k, j, i


class _Plane:
    """Features (F, j, i) of a plane of the source."""

    def __init__(self, features: torch.Tensor, head: VoxelHead) -> None:
        self.features = features
        self.head = head

    @cached_property
    def winners(self) -> torch.Tensor:
        """(j, i) int16: the winning class at each point, or `MIXED`."""
        return self.head.winners(self.features.flatten(1)).view(self.features.shape[1:])

    @cached_property
    def cells(self) -> torch.Tensor:
        """(j, i) int16: the class that wins from each point to its next neighbours, or `MIXED`."""
        winners, cells = self.winners, self.winners.clone()
        for own, other in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:]),
                           (np.s_[:-1, :-1], np.s_[1:, 1:])):
            cells[own].masked_fill_(winners[own] != winners[other], MIXED)
        return cells


class _Restorer:
    """Takes planes as they come, holds the last two, and fills the rows of labels that lie between them."""

    def __init__(self, head: VoxelHead, source: Geometry, target: Geometry, labels: np.ndarray, values: np.ndarray,
                 sink: RowSink | None, confidence: Confidence | None) -> None:
        self.head = head
        self.confidence = confidence
        self.labels, self.values, self.sink = labels, values.astype(labels.dtype), sink
        self.block = np.empty((min(ROWS_AT_ONCE, target.shape[0]), *target.shape[1:]), labels.dtype)
        self.first_row = 0
        self.rows, self.lines, self.columns = (_positions(source, target, axis) for axis in range(3))
        self.source_shape = source.shape
        self.next_row = 0
        self.number = -1
        self.plane: _Plane | None = None
        self.grid: _InPlane | None = None

    def add(self, features: torch.Tensor) -> None:
        """Take the next plane, (F, j, i)."""
        if not torch.isfinite(features.sum()):
            raise BadInput("The network's answer is not a number somewhere, so there is no label. In fp16 large values "
                           "overflow: use --precision bf16 or fp32; otherwise the model is damaged.")
        before, self.plane = self.plane, _Plane(features, self.head)
        if self.confidence is not None:
            self.confidence.take(features, self.plane.winners, self.head)
        self.number += 1
        if self.grid is None:
            self.grid = _InPlane(self.lines, self.columns, self.source_shape[1:], features.device)
        while self.next_row < len(self.rows) and self.rows[self.next_row] <= self.number:
            fraction = float(self.rows[self.next_row]) - self.number + 1  # from the plane before to this one
            if fraction == 1 or before is None:
                self._fill(self.plane, None, 0.0)
            else:
                self._fill(before, self.plane, fraction)
            self.next_row += 1

    def _fill(self, low: _Plane, high: _Plane | None, fraction: float) -> None:
        assert self.grid is not None
        if self.sink is not None:
            features = low.features if high is None else torch.lerp(low.features, high.features, fraction)
            logits = self.grid.all_logits(features, self.head)
            self.sink(self.next_row, logits)
            winners = largest(logits.flatten(1)).view(logits.shape[1:])
        else:
            winners = self.grid.winners(low, high, fraction)
        np.take(self.values, winners.cpu().numpy(), out=self.block[self.next_row - self.first_row], mode="clip")
        if self.next_row - self.first_row + 1 == len(self.block):
            self.flush(self.next_row + 1)

    def flush(self, upto: int | None = None) -> None:
        """Write the rows that are finished; `upto` where the next ones begin (default: as many as there are)."""
        stop = self.next_row if upto is None else upto
        self.labels[self.first_row:stop] = self.block[:stop - self.first_row]
        self.first_row = stop


class _InPlane:
    """Linear interpolation within planes, at a grid of rows and columns."""

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], device: torch.device) -> None:
        self.identity = all(len(positions) == size and np.array_equal(positions, np.arange(size))
                            for positions, size in zip((rows, columns), shape, strict=True))
        self.low_j, self.high_j, self.part_j = _neighbours(rows, shape[0], device)
        self.low_i, self.high_i, self.part_i = _neighbours(columns, shape[1], device)

    def winners(self, low: _Plane, high: _Plane | None, fraction: float) -> torch.Tensor:
        """(rows, columns) int16 class indices at `fraction` of the way from one plane to the other."""
        known = low.winners if self.identity else low.cells
        if high is not None:
            known = torch.where(known == (high.winners if self.identity else high.cells), known, MIXED)
        labels = known.clone() if self.identity else known.index_select(0, self.low_j).index_select(1, self.low_i)
        flat = labels.view(-1)
        mixed = (flat == MIXED).nonzero()[:, 0]
        features = low.features
        if high is not None and len(mixed) > features[0].numel() // LERP_ALL_FROM:
            features, high = torch.lerp(features, high.features, fraction), None
        for points in mixed.split(max(1, VALUES_AT_ONCE // (4 * low.head.features + low.head.classes))):
            values = self._at(points, features)
            if high is not None:
                values.lerp_(self._at(points, high.features), fraction)
            flat[points] = largest(low.head.logits(values))
        return labels

    def _at(self, points: torch.Tensor, plane: torch.Tensor) -> torch.Tensor:
        """Features (F, M) of a plane (F, j, i) at M points, counted through rows and columns."""
        columns = len(self.low_i)
        row = points.div(columns, rounding_mode="floor")
        column = points - row * columns
        values, width = plane.flatten(1), plane.shape[2]
        near, far = self.low_j[row] * width, self.high_j[row] * width
        left, right, part = self.low_i[column], self.high_i[column], self.part_i[column]
        upper = values.index_select(1, near + left).lerp_(values.index_select(1, near + right), part)
        lower = values.index_select(1, far + left).lerp_(values.index_select(1, far + right), part)
        return upper.lerp_(lower, self.part_j[row])

    def all_logits(self, plane: torch.Tensor, head: VoxelHead) -> torch.Tensor:
        """Logits (K, rows, columns) float32 of features (F, j, i), at every point."""
        if not self.identity:
            plane = torch.lerp(plane.index_select(1, self.low_j), plane.index_select(1, self.high_j),
                               self.part_j[:, None])
            plane = torch.lerp(plane.index_select(2, self.low_i), plane.index_select(2, self.high_i), self.part_i)
        return head.logits(plane.flatten(1)).view(-1, *plane.shape[1:])


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
