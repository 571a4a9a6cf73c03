"""What a forward pass takes, measured: it depends on the network, the processor's library and the arithmetic."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
from torch import nn

from medmae.inference.device import Precision, autocast, resolve_precision
from medmae.inference.memory import Growth
from medmae.networks.voxel_head import joined

# The first pass of a shape sets up what later ones use again; a second one may find memory less tidy.
MARGIN = 1.03
_measured: weakref.WeakKeyDictionary[nn.Module, dict[tuple, int]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def pass_bytes(networks: Sequence[nn.Module], channels: int, classes: int, window: Sequence[int], batch: int,
               device: torch.device, precision: Precision) -> int:
    """The most main memory that a pass of `batch` windows takes beyond its input; its output is included.

    Measured by one pass over zeros, once for each network, window, batch and arithmetic, as long as the network lives.

    Args:
        networks: those that answer together, in eval mode on `device`.
        channels: channels that a network sees.
        classes: classes of the networks.
        window: the window's size.
        batch: windows a pass.
        device: where the networks are.
        precision: their arithmetic.
    """
    key = (len(networks), channels, tuple(window), batch, str(device), resolve_precision(device, precision))
    known = _measured.setdefault(networks[0], {})
    if key in known:
        return known[key]
    features, _ = joined(networks, classes)
    windows = torch.zeros((batch, channels, *window), device=device)
    with Growth() as growth, autocast(device, precision):
        features(windows)
    # What the first pass leaves behind (code of the library, mostly) is held from now on, so it counts once only.
    known[key] = int((growth.bytes - growth.kept) * MARGIN)
    return int(growth.bytes * MARGIN)
