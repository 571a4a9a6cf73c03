"""What a forward pass takes, measured: it depends on the network, the processor's library and the arithmetic."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import nn

from medmae.inference.device import Precision, autocast, resolve_precision
from medmae.inference.memory import Growth, freed_memory_returned
from medmae.networks.voxel_head import Features, joined

_measured: weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]] = weakref.WeakKeyDictionary()


class PassMeter:
    """Measures the first pass of a whole batch among those that it runs, once for a network, window and arithmetic.

    What is freed during that pass goes back to the system, so that the growth is what lives at once and not what an
    allocator happens to have at hand or to keep (those differ by 100 MB and more, from one process to the next).

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
        """The most main memory that a pass takes beyond its input, while the output of one before (of an empty window)
        is held; None: not measured yet."""

    def run(self, network: Features, windows: torch.Tensor) -> torch.Tensor:
        """What `network` answers to windows (B, C, *window)."""
        if self.bytes is not None or len(windows) != self.batch:
            return network(windows)
        with freed_memory_returned(), Growth() as growth:
            output = network(windows)
        # What the first pass leaves behind (weights that lay in their file, code of the library) is held from now on,
        # so it counts once only.
        held = output.nbytes if output.device.type == "cpu" else 0
        left = max(0, growth.kept - held)
        self._known[self._key] = growth.bytes - left + held
        self.bytes = growth.bytes + held
        return output


@torch.no_grad()
def pass_bytes(networks: Sequence[nn.Module], channels: int, classes: int, window: Sequence[int], batch: int,
               device: torch.device, precision: Precision) -> int:
    """`PassMeter.bytes`, measured by a pass over zeros where nothing else has measured it; `classes`: of the networks.
    """
    meter = PassMeter(networks, channels, window, batch, device, precision)
    if meter.bytes is None:
        features, _ = joined(networks, classes)

        def forward(windows: torch.Tensor) -> torch.Tensor:
            with autocast(device, precision):
                return features(windows)

        meter.run(forward, torch.zeros((batch, channels, *window), device=device))
    assert meter.bytes is not None
    return meter.bytes
