"""The simulation behind docs/scaling.md agrees with what can be computed by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from scaling_simulation import Machine, Work, ring_all_reduce_s, simulate


def step_s(machine: Machine, work: Work) -> float:
    return simulate(machine, work, steps=200).step_s


def steady(bytes_read: float = 0.0, prepare_s: float = 0.0, compute_s: float = 0.5, **others: float) -> Work:
    return Work(bytes_read, prepare_s, compute_s, jitter=0.0, **others)


def test_loaders_that_keep_up_cost_nothing_and_slow_ones_set_the_pace() -> None:
    fast = simulate(Machine(threads=2), steady(prepare_s=0.9))
    assert (fast.step_s, fast.waiting) == (pytest.approx(0.5), 0.0)
    slow = simulate(Machine(threads=2), steady(prepare_s=2.0))
    assert (slow.step_s, slow.waiting) == (pytest.approx(1.0, rel=0.01), pytest.approx(0.5, rel=0.02))


def test_devices_share_the_storage() -> None:
    assert step_s(Machine(devices=4, storage=100.0), steady(bytes_read=100.0)) == pytest.approx(4.0, rel=0.03)
    one_reader = Machine(devices=4, threads=1, storage=1000.0, storage_a_reader=50.0)
    assert step_s(one_reader, steady(bytes_read=100.0)) == pytest.approx(2.0, rel=0.01)


def test_processes_on_processors_share_the_cores_with_their_loaders() -> None:
    machine = Machine(devices=2, cores_a_node=2, threads=1, computes_on_cores=True)
    assert step_s(machine, steady(prepare_s=0.5)) == pytest.approx(1.0, rel=0.01)


def test_an_exchange_adds_what_is_not_hidden_and_the_slowest_device_is_waited_for() -> None:
    assert step_s(Machine(devices=2), steady(exchange_s=0.2, hidden=0.25)) == pytest.approx(0.65)
    alone = step_s(Machine(), Work(0, 0, 1.0, jitter=0.1))
    many = step_s(Machine(devices=64), Work(0, 0, 1.0, jitter=0.1))
    assert alone == pytest.approx(1.0, rel=0.03)
    assert many == pytest.approx(1.24, rel=0.03)  # the expected largest of 64 normal numbers lies 2.4 deviations up


def test_a_ring_moves_nearly_twice_the_gradients_whatever_the_number_of_devices() -> None:
    assert ring_all_reduce_s(100.0, 2, 10.0, 0.0) == pytest.approx(10.0)
    assert ring_all_reduce_s(100.0, 64, 10.0, 0.001) == pytest.approx(20 * 63 / 64 + 0.126)
