"""Randomness that depends on the seed, the epoch and the item alone: never on the rank, the order or the past.

A resumed run, and a run on another number of processes, therefore sees exactly the same views, masks and augmentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Sample = TypeVar("Sample")


def random_generator(*parts: int | str) -> np.random.Generator:
    """A generator that is a pure function of `parts`, stable over processes, machines and Python versions."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], np.uint64)))


def integer_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts`."""
    return int(random_generator(*parts).integers(2**63 - 1))


@dataclass(frozen=True)
class Draw:
    """One sample to make: which item, in which pass over the data."""

    item: int
    epoch: int


class DrawOrder:
    """The infinite sequence of draws: every epoch is one shuffled pass over all items, nothing dropped or repeated."""

    def __init__(self, items: int, seed: int) -> None:
        if items < 1:
            raise ValueError("there must be at least one item to draw")
        self.items = items
        self.seed = seed
        self._epoch = -1
        self._permutation: np.ndarray = np.empty(0, np.int64)

    def batch(self, step: int, size: int) -> list[Draw]:
        """The draws of training step `step` (from 0) with `size` samples over all processes."""
        return [self._draw(number) for number in range(step * size, (step + 1) * size)]

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.items)
        if epoch != self._epoch:
            self._permutation = random_generator(self.seed, "order", epoch).permutation(self.items)
            self._epoch = epoch
        return Draw(int(self._permutation[position]), epoch)


def share(samples: Sequence[Sample], part: int, parts: int) -> Sequence[Sample]:
    """Part `part` of `parts` of a batch; the parts together are the batch, and their sizes differ by one at most."""
    return samples[len(samples) * part // parts:len(samples) * (part + 1) // parts]
