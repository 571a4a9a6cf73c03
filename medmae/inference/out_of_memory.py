"""When memory runs out: which errors say so, and what is given up, step by step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import nn

log = logging.getLogger(__name__)
SMALLEST_SIDE = 32
# How torch says it on a processor, where it raises no type of its own
CPU_MESSAGES = ("can't allocate memory", "not enough memory: you tried to allocate", "cannot allocate memory")


class WindowTooLarge(RuntimeError):
    """Not even one window fits into memory, with everything else given up."""


class Steps:
    """What was given up for memory's sake, in order; logged as it happens."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def take(self, what: str) -> None:
        """Note a step."""
        log.warning("Memory ran out: %s.", what)
        self.taken.append(what)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or a processor."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error).lower() for part in CPU_MESSAGES)


def smaller_window(networks: Sequence[nn.Module], window: Sequence[int]) -> tuple[int, ...] | None:
    """The next smaller window: sides of two thirds, multiples of 16 of at least 32.

    None where a network is not as good on other windows than its own (it does not say `takes_any_window`), or where
    the window is small already.
    """
    if not all(getattr(network, "takes_any_window", False) for network in networks):
        return None
    smaller = tuple(max(min(side, SMALLEST_SIDE), side * 2 // 3 // 16 * 16) for side in window)
    return None if smaller == tuple(window) else smaller
