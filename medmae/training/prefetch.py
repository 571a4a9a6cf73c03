"""The next batches, prepared in background threads while the network works."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from medmae.training.task import Batch

MOST_THREADS = 8


def loading_threads() -> int:
    """How many threads prepare batches: half of the cores that this process may use, shared with its neighbours.

    NumPy and torch release the interpreter lock in their kernels, so that threads are enough.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // (2 * int(os.environ.get("LOCAL_WORLD_SIZE", 1)))))


class Prefetch:
    """Iterates over ``load(first) ... load(end - 1)`` in order, while `threads` of them are computed in advance.

    `waited_s` is the time that the iterating side has waited for batches so far, in seconds.
    """

    def __init__(self, load: Callable[[int], Batch], first: int, end: int, threads: int | None = None) -> None:
        self._load, self._first, self._end = load, first, end
        self._threads = threads or loading_threads()
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Batch]:
        ahead = self._threads + 1
        executor = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="batches")
        try:
            pending: list[Future[Batch]] = [executor.submit(self._load, step)
                                            for step in range(self._first, min(self._first + ahead, self._end))]
            for step in range(self._first, self._end):
                begun = time.monotonic()
                batch = pending.pop(0).result()
                self.waited_s += time.monotonic() - begun
                if step + ahead < self._end:
                    pending.append(executor.submit(self._load, step + ahead))
                yield batch
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
