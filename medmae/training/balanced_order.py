"""Drawing from groups of very different size (modalities, classes of images) more evenly than they occur."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmae.training.randomness import Draw, DrawOrder, random_generator


def quotas(counts: ArrayLike, power: float) -> NDArray[np.int64]:
    """How often each group is drawn in an epoch of as many draws as there are items.

    With n items in a group, its share is proportional to n ** (1 - power): power 0 is the plain order, 1 gives every
    group the same. Whole numbers by largest remainder; no group gets less than one.

    Args:
        counts: items in each group, (groups,), all positive.
        power: from 0 to 1.
    """
    sizes = np.asarray(counts, np.float64)
    total = int(sizes.sum())
    weights = sizes ** (1 - power)
    exact = total * weights / weights.sum()
    numbers = np.maximum(1, np.floor(exact)).astype(np.int64)
    remainders = np.argsort(-(exact - numbers), kind="stable")
    for index in range(abs(total - int(numbers.sum()))):
        if numbers.sum() < total:
            numbers[remainders[index % len(numbers)]] += 1
        else:
            numbers[np.argmax(numbers)] -= 1
    return numbers


class BalancedOrder(DrawOrder):
    """The infinite sequence of draws in which the groups take the shares of `quotas`.

    An epoch has as many draws as there are items. Each group goes through its own items in shuffled passes that
    continue from epoch to epoch, so that no item is drawn again before all others of its group were, and none is left
    out. A draw's `epoch` is the number of the pass, so that an item that comes several times in an epoch gives
    different views. Like `DrawOrder` a pure function of (seed, number of the draw): nothing depends on processes or
    interruptions.

    Args:
        groups: (items,) the group of each item, 0 to groups - 1, each with at least one item.
        power: 0 (as often as they occur) to 1 (every group equally often).
        seed: of all shuffles.
    """

    def __init__(self, groups: ArrayLike, power: float, seed: int) -> None:
        numbers = np.asarray(groups, np.int64)
        super().__init__(len(numbers), seed)
        counts = np.bincount(numbers)
        if counts.min() < 1:
            raise ValueError("every group must have at least one item")
        self.quotas = quotas(counts, power)
        by_group = np.argsort(numbers, kind="stable")
        self._members = np.split(by_group, np.cumsum(counts)[:-1])
        self._passes: NDArray[np.int64] = np.empty(0, np.int64)

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.items)
        if epoch != self._epoch:
            self._permutation, self._passes = self._epoch_draws(epoch)
            self._epoch = epoch
        return Draw(int(self._permutation[position]), int(self._passes[position]))

    def _epoch_draws(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items and passes of all draws of an epoch."""
        items, passes = [], []
        for group, (members, quota) in enumerate(zip(self._members, self.quotas.tolist(), strict=True)):
            places = np.arange(epoch * quota, (epoch + 1) * quota)
            which, within = np.divmod(places, len(members))
            drawn = np.empty(quota, np.int64)
            for one in np.unique(which).tolist():
                shuffled = random_generator(self.seed, "balanced", group, one).permutation(members)
                drawn[which == one] = shuffled[within[which == one]]
            items.append(drawn)
            passes.append(which)
        order = random_generator(self.seed, "balanced order", epoch).permutation(self.items)
        return np.concatenate(items)[order], np.concatenate(passes)[order]
