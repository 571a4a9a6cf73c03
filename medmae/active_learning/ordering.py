"""The order in which scored cases are proposed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def in_order(items: Sequence[Item], score_of: Callable[[Item], float], subject_of: Callable[[Item], str]) -> list[Item]:
    """Different subjects first: the best case of each subject by falling score, then the second best of each.

    Cases of one subject are alike, so that annotating two of them teaches less. Equal scores keep the order of `items`.
    """
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Item]] = []
    for item in sorted(items, key=score_of, reverse=True):  # stable, also when reversed
        turns.append((seen[subject_of(item)], item))
        seen[subject_of(item)] += 1
    return [item for _, item in sorted(turns, key=lambda turn: turn[0])]
