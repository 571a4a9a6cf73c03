"""Packing the tokens of part of a map for window attention: short windows share a group, so that no work is wasted.

Needs numpy alone to decide, so that it can be done ahead of time in the thread that loads the batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where N tokens of a map go for attention in windows. All tensors are int32.

    tokens: (B, groups, length), which token stands at each place; an empty place repeats token 0 and nobody reads it.
    places: (B, N), the place of each token in its image's groups, flat.
    rows, cols: (B, groups, length), position in the map of the token at each place.
    windows: (B, groups, length), its window; -1 where the place is empty.
    """

    tokens: Tensor
    places: Tensor
    rows: Tensor
    cols: Tensor
    windows: Tensor

    def bias_rows(self, window: int) -> Tensor:
        """For every pair of places (B, groups, length, length) the row of the table of relative-position biases.

        Pairs of different windows get the row behind the table's last one, which stands for "hidden from each other".
        """
        side = 2 * window - 1
        down = self.rows[..., :, None] - self.rows[..., None, :] + window - 1
        right = self.cols[..., :, None] - self.cols[..., None, :] + window - 1
        together = self.windows[..., :, None] == self.windows[..., None, :]
        # Empty places repeat a token that may lie anywhere; they are alone with their like, so any row will do.
        return torch.where(together, (down * side + right).clamp(0, side * side - 1), side * side)

    def of_samples(self, samples: Tensor) -> Packing:
        """The packing of some images of the batch."""
        return Packing(**{field.name: getattr(self, field.name)[samples] for field in fields(self)})

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Its tensors by name, as a part of a batch."""
        return {f"{prefix}.{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], prefix: str) -> Packing:
        """The opposite of `tensors`."""
        return cls(**{field.name: tensors[f"{prefix}.{field.name}"] for field in fields(cls)})


def pack(rows: NDArray[np.integer], cols: NDArray[np.integer], window: int, shift: int) -> Packing:
    """Pack tokens at (rows, cols), both (B, N), into groups of at most window**2 tokens that never split a window.

    First-fit decreasing, for all images of the batch at once. With `shift`, windows begin at multiples of the window
    plus the shift: the regions that rolling and masking makes in the dense block.
    """
    batch, count = rows.shape
    offset = (window - shift) % window
    across = int(cols.max() + offset) // window + 1
    number = (rows + offset) // window * across + (cols + offset) // window
    images = np.arange(batch)[:, None]
    sizes = np.zeros((batch, int(number.max()) + 1), np.int64)
    np.add.at(sizes, (images, number), 1)
    length = min(window * window, count)
    start, groups = _first_fit_decreasing(sizes, length)
    order = np.argsort(number, axis=1, kind="stable")
    in_order = number[images, order]
    rank = np.arange(count) - (np.cumsum(sizes, 1) - sizes)[images, in_order]
    place = start[images, in_order] + rank
    tokens = np.zeros((batch, groups * length), np.int32)
    windows = np.full((batch, groups * length), -1, np.int32)
    places = np.empty((batch, count), np.int32)
    tokens[images, place], windows[images, place], places[images, order] = order, in_order, place
    shape = (batch, groups, length)
    of_places = [array.reshape(shape).astype(np.int32)
                 for array in (tokens, rows[images, tokens], cols[images, tokens], windows)]
    return Packing(torch.from_numpy(of_places[0]), torch.from_numpy(places), *map(torch.from_numpy, of_places[1:]))


def _first_fit_decreasing(sizes: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], int]:
    """The first place of every window (B, W) in groups of `length`, and the number of groups of the fullest image."""
    images = np.arange(len(sizes))
    order = np.argsort(-sizes, axis=1, kind="stable")
    most = max(1, int((sizes > 0).sum(1).max()))
    filled = np.zeros((len(sizes), most), np.int64)
    start = np.zeros_like(sizes)
    for window in order[:, :most].T:
        size = sizes[images, window]
        group = (filled + size[:, None] <= length).argmax(1)
        start[images, window] = group * length + filled[images, group]
        filled[images, group] += size
    return start, int((filled > 0).sum(1).max())
