"""Draws depend on the seed, the epoch and the item alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medmae.training.randomness import DrawOrder, integer_seed, random_generator, share


@given(items=st.integers(1, 40), size=st.integers(1, 16), seed=st.integers(0, 5))
def test_every_epoch_visits_every_item_exactly_once(items: int, size: int, seed: int) -> None:
    order = DrawOrder(items, seed)
    draws = [draw for step in range(3 * items // size + 1) for draw in order.batch(step, size)]
    for epoch in range(len(draws) // items):
        of_epoch = [draw.item for draw in draws if draw.epoch == epoch]
        assert sorted(of_epoch) == list(range(items))


@given(step=st.integers(0, 50), processes=st.integers(1, 9))
def test_processes_share_one_batch_whatever_their_number(step: int, processes: int) -> None:
    batch = DrawOrder(7, 3).batch(step, 8)
    shares = [share(batch, rank, processes) for rank in range(processes)]
    assert [draw for one in shares for draw in one] == batch
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_steps_can_be_drawn_in_any_order() -> None:
    forward, backward = DrawOrder(5, 1), DrawOrder(5, 1)
    ahead = [forward.batch(step, 3) for step in range(10)]
    assert [backward.batch(step, 3) for step in reversed(range(10))] == ahead[::-1]


def test_generators_are_stable_over_processes_and_versions() -> None:
    assert integer_seed(0, "order", 1) == 9122637395315469513
    assert random_generator("a").random() != random_generator("b").random()
    assert random_generator("ab", "c").random() != random_generator("a", "bc").random()
