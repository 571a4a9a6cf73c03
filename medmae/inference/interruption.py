"""A forward pass that can be stopped between layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from medmae.errors import Stopped

ASK_EVERY_SECONDS = 0.1
ShouldStop = Callable[[], bool]


@contextmanager
def interruptible(networks: Sequence[nn.Module], device: torch.device,
                  should_stop: ShouldStop | None) -> Iterator[None]:
    """Ask `should_stop` before every layer of `networks` (ten times a second at most) while the block runs.

    On processors, where a window may take seconds. On a GPU layers are only queued, so asking there would not help.

    Raises:
        Stopped: in the block, as soon as `should_stop` says so.
    """
    if should_stop is None or device.type != "cpu":
        yield
        return
    asked = time.monotonic()

    def ask(*_: Any) -> None:
        nonlocal asked
        now = time.monotonic()
        if now - asked >= ASK_EVERY_SECONDS:
            asked = now
            if should_stop():
                raise Stopped("Stopped on request.")

    modules = [module for network in networks for module in network.modules()]
    hooks = [module.register_forward_pre_hook(ask) for module in modules if not list(module.children())]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
