"""Counting label pairs: one pass over two label maps serves the Dice of every label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOXELS_AT_ONCE = 1 << 22  # keeps the temporary indices of large volumes small


@dataclass(frozen=True)
class LabelCounts:
    """Voxels of one label: in the reference, in the prediction, and in both."""

    reference: int
    prediction: int
    both: int


def count_labels(reference: NDArray, prediction: NDArray, labels: Mapping[str, int]) -> dict[str, LabelCounts]:
    """Count the voxels of each label (name to stored value) in two label maps of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"The reference has the shape {reference.shape}, the prediction {prediction.shape}.")
    values = np.array(sorted(set(labels.values())), dtype=np.int64)
    side = len(values) + 1  # the last index stands for every other value
    table = np.zeros(side * side, dtype=np.int64)
    first, second = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, first.size, VOXELS_AT_ONCE):
        part = slice(start, start + VOXELS_AT_ONCE)
        pairs = _index(first[part], values) * side + _index(second[part], values)
        table += np.bincount(pairs, minlength=side * side)
    square = table.reshape(side, side)
    position = {int(value): number for number, value in enumerate(values)}
    return {name: LabelCounts(int(square[position[value]].sum()), int(square[:, position[value]].sum()),
                              int(square[position[value], position[value]]))
            for name, value in labels.items()}


def _index(stored: NDArray, values: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(values):
        return np.zeros(stored.size, dtype=np.int64)
    if stored.dtype in (np.uint8, np.uint16):  # what label maps usually are: a table is several times as quick
        table = np.full(np.iinfo(stored.dtype).max + 1, len(values), dtype=np.int64)
        usable = (values >= 0) & (values < table.size)
        table[values[usable]] = np.flatnonzero(usable)
        return table[stored]
    found = np.minimum(np.searchsorted(values, stored), len(values) - 1)
    return np.where(values[found] == stored, found, len(values))
