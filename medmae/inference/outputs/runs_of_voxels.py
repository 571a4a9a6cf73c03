"""Connected parts of a mask by its runs: stretches of voxels along the last axis.

A mask has far fewer runs than voxels, so that parts are found without a volume of numbers beside the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a mask (k, j, i) in the order of its voxels.

    Attributes:
        shape: of the mask.
        row: (N,) the row k * J + j of each run.
        start, end: (N,) its first voxel along i, and the one behind its last.
    """

    shape: tuple[int, int, int]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Runs:
        """The runs of a mask (k, j, i)."""
        rows, starts, ends = [], [], []
        for number, plane in enumerate(mask):
            padded = np.zeros((plane.shape[0], plane.shape[1] + 2), np.int8)
            padded[:, 1:-1] = plane
            change = np.diff(padded, axis=1)
            j, start = np.nonzero(change == 1)
            rows.append(j + number * mask.shape[1])
            starts.append(start)
            ends.append(np.nonzero(change == -1)[1])
        k, j, i = mask.shape
        return cls((k, j, i), np.concatenate(rows), np.concatenate(starts), np.concatenate(ends))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) voxels of each run."""
        return self.end - self.start

    def components(self, *, touching: int) -> NDArray[np.int64]:
        """The number of the part that each run (N,) belongs to.

        Args:
            touching: 26: voxels that share a corner are connected; 6: those that share a face.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not len(self.row):
            return np.zeros(0, np.int64)
        neighbours = ((0, 1), (1, -1), (1, 0), (1, 1)) if touching == 26 else ((0, 1), (1, 0))
        reach = 1 if touching == 26 else 0
        pairs = [self._touching(*step, reach) for step in neighbours]
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(len(self.row), len(self.row)))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    def _touching(self, planes: int, rows: int, reach: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of runs (one, other) where the other lies `planes` and `rows` further and touches the one."""
        height, width = self.shape[1], self.shape[2] + 2
        j = self.row % height + rows
        whose = np.flatnonzero((j >= 0) & (j < height))
        there = (self.row[whose] + planes * height + rows) * width
        # Runs of the other row that end behind this one's start and start before its end; both rise with the row.
        first = np.searchsorted(self.row * width + self.end, there + self.start[whose] + 1 - reach)
        last = np.searchsorted(self.row * width + self.start, there + self.end[whose] - 1 + reach, side="right")
        counts = np.maximum(last - first, 0)
        begin = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(whose, counts), np.repeat(first, counts) + np.arange(counts.sum()) - begin

    def voxels(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The flat indices in the mask of the voxels of the chosen runs (N,)."""
        first = self.row[chosen] * self.shape[2] + self.start[chosen]
        counts = self.lengths[chosen]
        begin = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(first, counts) + np.arange(counts.sum()) - begin
