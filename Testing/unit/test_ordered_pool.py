"""The pool of processes: the order of the tasks, processes that die, stopping, bounded memory."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from medmae.datasets.ordered_pool import Interrupted, OrderedPool
from medmae.errors import BadInput

HERE = __name__


def work(context: str, task: int) -> str:
    """What the processes call; strange on purpose for some tasks."""
    if task % 10 == 3:
        raise BadInput(f"task {task} is bad")
    if task % 10 == 5:
        return [][task]  # an unexpected error
    if task == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    if task % 10 == 8:
        time.sleep(0.05)
    print("a library that prints on standard output")
    return f"{context} {task}"


def die_once(folder: str, task: int) -> int:
    mark = Path(folder) / f"tried {task}"
    if task == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def large(size: int, task: int) -> bytes:
    return bytes(size)


def never() -> bool:
    return False


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_a_process_that_dies_costs_its_task_alone(workers: int) -> None:
    pool: OrderedPool[int] = OrderedPool(HERE, "work", "done", workers)
    results = list(pool.run(range(40), 40, never))
    assert [result.task for result in results] == list(range(40))
    for number, result in enumerate(results):
        if number == 7:
            assert result.problem is not None and "memory" in result.problem
        elif number % 10 == 3:
            assert (result.problem, result.trace) == (f"task {number} is bad", "")
        elif number % 10 == 5:
            assert result.problem is not None and "IndexError" in result.problem and "Traceback" in result.trace
        else:
            assert (result.value, result.problem) == (f"done {number}", None)


def test_a_task_whose_process_was_killed_once_is_tried_again(tmp_path: Path) -> None:
    pool: OrderedPool[int] = OrderedPool(HERE, "die_once", str(tmp_path), 2)
    assert [result.value for result in pool.run(range(20), 20, never)] == list(range(20))


def test_without_processes_it_gives_the_same() -> None:
    tasks = [0, 1, 3, 5, 8]
    here, there = ([(result.value, result.problem) for result in OrderedPool(HERE, "work", "x", workers).run(
        tasks, len(tasks), never)] for workers in (0, 2))
    assert here == there


def test_a_stop_ends_it_soon_and_leaves_no_process(tmp_path: Path) -> None:
    pool: OrderedPool[int] = OrderedPool("time", "sleep", None, 2)  # not callable with two arguments: all are problems
    seen: list[int] = []
    with pytest.raises(Interrupted):
        seen.extend(result.task for result in pool.run(iter(range(10**9)), 10**9, lambda: len(seen) >= 5))
    assert seen == list(range(5))


def test_no_task_begins_while_too_much_waits_for_its_turn() -> None:
    begun: list[int] = []

    def tasks() -> object:
        for number in range(30):
            begun.append(number)
            yield number

    pool: OrderedPool[int] = OrderedPool(HERE, "large", 1000, 1, held_bytes=5000)
    results = pool.run(tasks(), 30, never)  # type: ignore[arg-type]
    next(results)
    time.sleep(0.3)  # it could begin many in this time
    assert len(begun) <= 9  # one yielded, five held, and those in the making
    assert sum(1 for _ in results) == 29


def test_a_fault_in_making_the_tasks_is_not_swallowed() -> None:
    def tasks() -> object:
        yield 1
        raise RuntimeError("no more tasks")

    pool: OrderedPool[int] = OrderedPool(HERE, "work", "x", 1)
    with pytest.raises(RuntimeError, match="no more tasks"):
        list(pool.run(tasks(), 9, never))  # type: ignore[arg-type]
