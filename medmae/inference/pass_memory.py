"""What a forward pass takes, measured: it depends on the network, the processor's library and the arithmetic."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from medmae.inference.device import Precision, autocast, resolve_precision
from medmae.inference.memory import Growth
from medmae.networks.voxel_head import joined

# The first pass of a shape sets up what later ones use again; a second one may find memory less tidy.
MARGIN = 1.03
_measured: weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]] = weakref.WeakKeyDictionary()


class PassMeter:
    """Measures the first pass of a whole batch among those that go by, once for a network, window and arithmetic.

    Args:
        networks: those that answer together, in eval mode on `device`.
        channels: channels that a network sees.
        window: the window's size.
        batch: windows a pass.
        device: where the networks are.
        precision: their arithmetic.
    """

    def __init__(self, networks: Sequence[nn.Module], channels: int, window: Sequence[int], batch: int,
                 device: torch.device, precision: Precision) -> None:
        self._known = _measured.setdefault(networks[0], {})
        self._key = (len(networks), channels, tuple(window), batch, str(device), resolve_precision(device, precision))
        self.batch = batch
        self.bytes: int | None = self._known.get(self._key)
        """The most main memory that a pass takes beyond its input, its output included; None: not measured yet."""

    @contextmanager
    def watch(self, windows: int) -> Iterator[None]:
        """What happens inside is a pass of so many windows."""
        if self.bytes is not None or windows != self.batch:
            yield
            return
        with Growth() as growth:
            yield
        # What the first pass leaves behind (code of the library, mostly) is held from now on, so it counts once only.
        self._known[self._key] = int((growth.bytes - growth.kept) * MARGIN)
        self.bytes = int(growth.bytes * MARGIN)


@torch.no_grad()
def pass_bytes(networks: Sequence[nn.Module], channels: int, classes: int, window: Sequence[int], batch: int,
               device: torch.device, precision: Precision) -> int:
    """`PassMeter.bytes`, measured by a pass over zeros where nothing else has measured it; `classes`: of the networks.
    """
    meter = PassMeter(networks, channels, window, batch, device, precision)
    if meter.bytes is None:
        features, _ = joined(networks, classes)
        windows = torch.zeros((batch, channels, *window), device=device)
        with meter.watch(batch), autocast(device, precision):
            features(windows)
    assert meter.bytes is not None
    return meter.bytes
