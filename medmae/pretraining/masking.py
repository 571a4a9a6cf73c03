"""Which parts of a view are hidden: exact counts, uniform, drawn from a seeded generator per view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def hidden_count(total: int, ratio: float) -> int:
    """How many of `total` parts are hidden at `ratio`; at least one hidden and one visible."""
    return min(total - 1, max(1, total - int(total * (1 - ratio))))


def block_mask(grid: tuple[int, ...], ratio: float, generator: np.random.Generator) -> np.ndarray:
    """A boolean mask over `grid`, True = hidden, with exactly `hidden_count` hidden (VIS-MAE window masking)."""
    total = int(np.prod(grid))
    mask = np.zeros(total, bool)
    mask[generator.permutation(total)[:hidden_count(total, ratio)]] = True
    return mask.reshape(grid)


def visible_tokens(total: int, ratio: float, generator: np.random.Generator,
                   outside: np.ndarray | None = None) -> np.ndarray:
    """Sorted indices of the tokens that stay visible (MAE convention: the others are dropped from the encoder).

    Their number is always the same. `outside` (total,) marks tokens that show nothing but padding: the ratio then holds
    among the others, at least one of which is hidden, and padding makes up the number.
    """
    count = total - hidden_count(total, ratio)
    order = generator.permutation(total)
    if outside is None or not outside.any():
        return np.sort(order[total - count:])
    inside, padding = order[~outside[order]], order[outside[order]]
    shown = round(len(inside) * count / total)
    shown = max(min(max(shown, 1), len(inside) - 1), count - len(padding), 0)
    return np.sort(np.concatenate([inside[:shown], padding[:count - shown]]))


def expand_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A mask over blocks or tokens as a mask over the pixels or voxels of `size`."""
    for axis, length in enumerate(size):
        mask = np.repeat(mask, length // mask.shape[axis], axis=axis)
    return mask
