"""The weighted mean of overlapping windows, plane after plane, with as few planes open as a window is high.

The weight of a window at a voxel is divided by the sum of the weights of all windows there before it is used, so the
sums are means from the start: nothing is divided in the end, no weights are kept for each channel, and half precision
does not underflow. The open planes are a ring: finished ones are handed out and their places taken by new ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch

from medmae.inference.windows import AxisWindows, gaussian_weight

VALUES_AT_ONCE = 2**17  # summed at once on a processor: what is converted to fp32 stays in its cache


class Blend:
    """Means over the wanted part of an image, layer of windows by layer of windows along the first axis.

    Args:
        axes: the windows of each axis.
        device: where the sums are kept.
        dtype: of the sums; float16 halves them and rounds to 11 bits, 3 more than the outputs of a bf16 network have.
    """

    def __init__(self, axes: Sequence[AxisWindows], device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.first, *self.rest = axes
        self.device, self.dtype = device, dtype
        self.weight = gaussian_weight([axis.window for axis in axes]).to(device)
        self.in_plane = torch.zeros((self.first.window, *(axis.extent for axis in self.rest)), device=device)
        for starts in itertools.product(*(axis.starts for axis in self.rest)):
            self.in_plane[(slice(None), *self._wanted(starts))] += self.weight[(slice(None), *self._own(starts))]
        self.height = min(self.first.window, self.first.extent)
        self.sums: torch.Tensor | None = None
        self.layer: int | None = None
        self.totals = self.in_plane
        self.next_plane = 0

    def add(self, output: torch.Tensor, start: Sequence[int]) -> None:
        """Add the output (F, *window) of the window at `start`; layers come in order."""
        layer, *starts = start
        if self.layer != layer:
            self.layer, self.totals = layer, self._total_weights(layer)
        if self.sums is None:
            self.sums = torch.zeros((self.height, output.shape[0], *(axis.extent for axis in self.rest)),
                                    dtype=self.dtype, device=self.device)
        own, wanted = self._own(starts), self._wanted(starts)
        planes = self.first.inside_window(layer)
        share = self.weight[(planes, *own)] / self.totals[(slice(None), *wanted)]
        values = output[(slice(None), planes, *own)].transpose(0, 1)
        first = self.first.inside_wanted(layer).start
        for begin, end in self._portions(first, len(share), values[0].numel()):
            place = (first + begin) % self.height
            target = self.sums[(slice(place, place + end - begin), slice(None), *wanted)]
            _add_product(target, values[begin:end].to(self.device), share[begin:end, None])

    def release(self, upto: int) -> Iterator[torch.Tensor]:
        """Yield the planes (F, 1, *rest) float32 before voxel `upto` of the first axis that are not out yet."""
        assert self.sums is not None
        for plane in range(self.next_plane, min(upto, self.first.upper) - self.first.lower):
            finished = self.sums[plane % self.height]
            yield finished.to(torch.float32, copy=True)[:, None]
            finished.zero_()
            self.next_plane = plane + 1

    def _total_weights(self, layer: int) -> torch.Tensor:
        """Sum of the weights of all windows (planes, *rest) where those of `layer` are."""
        here = self.first.inside_wanted(layer)
        totals = torch.zeros((here.stop - here.start, *self.in_plane.shape[1:]), device=self.device)
        for other in self.first.starts:
            there = self.first.inside_wanted(other)
            begin, end = max(here.start, there.start), min(here.stop, there.stop)
            if begin < end:
                offset = self.first.inside_window(other).start - there.start
                totals[begin - here.start:end - here.start] += self.in_plane[begin + offset:end + offset]
        return totals

    def _portions(self, first: int, planes: int, values_per_plane: int) -> Iterator[tuple[int, int]]:
        """Runs of planes that lie behind each other in the ring; on a processor few enough for its cache."""
        most = planes if self.device.type == "cuda" else max(1, VALUES_AT_ONCE // max(1, values_per_plane))
        begin = 0
        while begin < planes:
            end = min(begin + most, planes, begin + self.height - (first + begin) % self.height)
            yield begin, end
            begin = end

    def _own(self, starts: Sequence[int]) -> list[slice]:
        return [axis.inside_window(start) for axis, start in zip(self.rest, starts, strict=True)]

    def _wanted(self, starts: Sequence[int]) -> list[slice]:
        return [axis.inside_wanted(start) for axis, start in zip(self.rest, starts, strict=True)]


def _add_product(target: torch.Tensor, values: torch.Tensor, weight: torch.Tensor) -> None:
    """target += values * weight, in fp32 whatever the types are."""
    if target.dtype == torch.float32:
        target.addcmul_(values.float(), weight)
    else:
        target.copy_(torch.addcmul(target.float(), values.float(), weight))
