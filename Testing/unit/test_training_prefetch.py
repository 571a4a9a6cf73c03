"""Batches prepared in advance: their order, their number, faults, and the time that was waited."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from medmae.training.prefetch import Prefetch, loading_threads
from medmae.training.task import Batch


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_however_long_each_takes(threads: int) -> None:
    def load(step: int) -> Batch:
        time.sleep(0.01 * (step % 3 == 0))
        return {"step": torch.tensor(step)}

    assert [int(batch["step"]) for batch in Prefetch(load, 4, 20, threads)] == list(range(4, 20))
    assert list(Prefetch(load, 5, 5, threads)) == []


def test_no_more_than_asked_are_in_memory() -> None:
    begun: list[int] = []

    def load(step: int) -> Batch:
        begun.append(step)
        return {}

    batches = iter(Prefetch(load, 0, 100, 2))
    for taken in range(1, 10):
        next(batches)
        time.sleep(0.005)
        assert len(begun) <= taken + 3


def test_waiting_is_counted_and_what_the_training_does_meanwhile_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def look() -> float:
        clock[0] += 1
        return clock[0]

    monkeypatch.setattr("medmae.training.prefetch.time", SimpleNamespace(monotonic=look))
    batches = Prefetch(lambda step: {}, 0, 3, 1)
    for _ in batches:
        clock[0] += 100
    assert batches.waited_s == 3


def test_a_fault_in_loading_reaches_the_training() -> None:
    def load(step: int) -> Batch:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(Prefetch(load, 0, 3, 2))


def test_there_is_at_least_one_thread_and_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert loading_threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loading_threads() == 2
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    assert loading_threads() == 1
