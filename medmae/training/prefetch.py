"""The next batches, prepared in a background thread while the network works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from medmae.training.task import Batch

AHEAD = 2


def prefetch(load: Callable[[int], Batch], first: int, end: int) -> Iterator[Batch]:
    """Yield ``load(first) ... load(end - 1)`` in order; at most `AHEAD` are computed in advance.

    NumPy and torch release the interpreter lock in their kernels, so that one thread is enough to hide reading.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        pending: list[Future[Batch]] = [executor.submit(load, step) for step in range(first, min(first + AHEAD, end))]
        for step in range(first, end):
            batch = pending.pop(0).result()
            if step + AHEAD < end:
                pending.append(executor.submit(load, step + AHEAD))
            yield batch
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
