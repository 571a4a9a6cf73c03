"""Slices of a volume as 2-D networks see them, alone or with their neighbours as further channels (2.5-D).

Training, validation and inference all cut slices here, so that a network is used as it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def slice_stacks(array: np.ndarray, numbers: Sequence[int] | range, context: int = 0) -> np.ndarray:
    """Slices of (C, k, rows, columns) with `context` neighbours on each side, as network input.

    Beyond the first and the last slice these are repeated, so that every slice has its neighbours; an image of one
    slice has itself on both sides. Of a memory-mapped volume only the slices asked for are read.

    Args:
        array: the prepared image.
        numbers: which slices, 0 <= number < k.
        context: neighbouring slices on each side.

    Returns:
        (len(numbers), C * (2 * context + 1), rows, columns), a copy: from the slice `context` before to the one
        `context` behind, the C image channels of a slice together.
    """
    offsets = np.arange(-context, context + 1)
    places = np.clip(np.asarray(numbers, dtype=np.intp)[:, None] + offsets, 0, array.shape[1] - 1)
    stacks = np.take(array, places, axis=1)  # (C, n, 2 * context + 1, rows, columns)
    channels = array.shape[0] * len(offsets)
    return np.ascontiguousarray(stacks.transpose(1, 2, 0, 3, 4)).reshape(len(places), channels, *array.shape[2:])


def slice_stack(array: np.ndarray, number: int, context: int = 0) -> np.ndarray:
    """One slice of `slice_stacks`: (C * (2 * context + 1), rows, columns)."""
    return slice_stacks(array, [number], context)[0]
