"""Balanced drawing: the shares, that nothing starves, and that it depends on seed and number alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.training.balanced_order import BalancedOrder, quotas
from medmae.training.randomness import DrawOrder

GROUPS = np.array([0] * 70 + [1] * 25 + [2] * 5)


def epochs(order: DrawOrder, count: int) -> list[list[tuple[int, int]]]:
    draws = [(draw.item, draw.epoch) for draw in order.batch(0, count * order.items)]
    return [draws[start:start + order.items] for start in range(0, len(draws), order.items)]


@pytest.mark.parametrize(("power", "expected"), [(0.0, [70, 25, 5]), (1.0, [34, 33, 33]), (0.5, [54, 32, 14])])
def test_an_epoch_draws_every_group_as_often_as_its_quota(power: float, expected: list[int]) -> None:
    order = BalancedOrder(GROUPS, power, seed=3)
    assert sorted(order.quotas.tolist(), reverse=True) == expected
    for epoch in epochs(order, 4):
        counts = Counter(int(GROUPS[item]) for item, _ in epoch)
        assert [counts[group] for group in range(3)] == order.quotas.tolist()


def test_no_item_comes_again_before_all_of_its_group_and_no_view_comes_twice() -> None:
    drawn = [pair for epoch in epochs(BalancedOrder(GROUPS, 1.0, seed=0), 9) for pair in epoch]
    assert len(set(drawn)) == len(drawn)  # an item with the same pass number would give the same view again
    counts = Counter(item for item, _ in drawn)
    for group in range(3):
        often = [counts[int(item)] for item in np.flatnonzero(group == GROUPS)]
        assert min(often) >= 1
        assert max(often) - min(often) <= 1


def test_draws_depend_on_the_seed_and_the_number_alone() -> None:
    whole = BalancedOrder(GROUPS, 0.7, seed=5)
    expected = [draw for step in range(60) for draw in whole.batch(step, 7)]
    resumed = BalancedOrder(GROUPS, 0.7, seed=5)
    assert [draw for step in range(33, 60) for draw in resumed.batch(step, 7)] == expected[33 * 7:]
    assert resumed.batch(0, 7) == expected[:7]  # going back to an earlier epoch gives the same again
    assert BalancedOrder(GROUPS, 0.7, seed=6).batch(0, 7) != expected[:7]


def test_items_of_an_epoch_are_mixed() -> None:
    first = [int(GROUPS[draw.item]) for draw in BalancedOrder(GROUPS, 1.0, seed=0).batch(0, 50)]
    assert all(5 < first.count(group) < 30 for group in range(3))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=12), st.floats(0, 1))
def test_quotas_are_whole_positive_and_add_up(counts: list[int], power: float) -> None:
    found = quotas(counts, power)
    assert found.sum() == sum(counts)
    assert found.min() >= 1
    weights = np.array(counts, float) ** (1 - power)
    exact = sum(counts) * weights / weights.sum()
    assert np.abs(found - exact).max() <= max(1.0, np.maximum(1 - exact, 0).sum() + 1)
