"""How the samples of a training step are shared: by the processes, and by each of them into parts that fit its device.

Whatever the number of processes and parts, a step is the same: every sample counts once, with the same weight.
"""

from __future__ import annotations

from collections.abc import Sequence

from medmae.training.randomness import share


class BatchParts:
    """The parts of a batch that one process computes one after another, before one step of the optimiser.

    All processes have equally many parts, because losses may exchange figures in their forward. Where a process has a
    sample less than others and therefore nothing left for a part, its first sample stands in and counts nothing.

    Args:
        batch_size: samples of a step over all processes; at least `size`.
        at_once: most samples that a device computes at once; None for the whole share of a process.
        rank, size: which process of how many.
    """

    def __init__(self, batch_size: int, at_once: int | None, rank: int, size: int) -> None:
        if batch_size < size:
            raise ValueError(f"a batch of {batch_size} leaves some of {size} processes without a sample")
        self.batch_size = batch_size
        self._size = size
        largest_share = -(-batch_size // size)
        self.count = -(-largest_share // (at_once or largest_share))
        self._own = share(range(batch_size), rank, size)

    def places(self, part: int) -> Sequence[int]:
        """Which samples of the batch, one after another, are computed in part `part`; at least one."""
        return self._of(part) or self._own[:1]

    def weight(self, part: int) -> float:
        """The share of the batch that part `part` is: what the mean over its samples counts in that over all."""
        return len(self._of(part)) / self.batch_size

    @property
    def smallest(self) -> int:
        """Samples of the smallest part of any process."""
        return max(1, self.batch_size // self._size // self.count)

    def _of(self, part: int) -> Sequence[int]:
        return share(self._own, part, self.count)
