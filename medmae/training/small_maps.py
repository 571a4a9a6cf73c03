"""Convolutions of maps with a side of one or two voxels, which processors must not train in bf16.

The weight gradient that oneDNN (torch 2.13, AVX512-BF16) computes of a 3x3x3 convolution in bf16 reads and writes
beyond its memory where a map has two slices, with a stride of 2 where any side is one voxel: it is noise or NaN, and at
times ends the process. Such maps come from small views and windows at the coarsest level of a convolutional network;
they are so small that fp32 costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

SMALL = 2  # voxels
_CONVOLUTIONS = (torch.conv2d, torch.conv3d)


def small_maps_in_full(device: torch.device) -> AbstractContextManager[Any]:
    """A context for the forward pass in which convolutions of small maps are computed, and differentiated, in fp32.

    Only where it is needed: on a processor, inside an autocast context.
    """
    needed = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return _SmallMapsInFull() if needed else nullcontext()


class _SmallMapsInFull(TorchFunctionMode):
    def __torch_function__(self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        if func not in _CONVOLUTIONS or min(args[0].shape[2:]) > SMALL:
            return func(*args, **(kwargs or {}))
        maps, *others = args
        with torch.autocast("cpu", enabled=False):
            result = func(maps.float(), *(_full(value) for value in others),
                          **{name: _full(value) for name, value in (kwargs or {}).items()})
        return result.to(torch.get_autocast_dtype("cpu"))


def _full(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value
