"""A network with a fixed window on an image of any size: overlapping windows, blended with gaussian weights.

Windows and weights are those of MONAI's `sliding_window_inference` (mode "gaussian", sigma an eighth of the window),
and so are the results. What differs is memory: windows are visited layer by layer along the first axis, and planes that
no later window touches are handed on at once, so the logits of the whole image never exist together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from medmae.errors import Stopped
from medmae.inference.device import Precision, autocast

SMALLEST_WEIGHT = 1e-3
PLANES_AT_ONCE = 8
OnProgress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]


def sliding_window(network: nn.Module, image: torch.Tensor, window: Sequence[int], *, overlap: float = 0.5,
                   batch: int = 1, device: torch.device | None = None, precision: Precision = "fp32",
                   on_progress: OnProgress | None = None, should_stop: ShouldStop | None = None) -> torch.Tensor:
    """Logits (K, *spatial) float32 of an image (C, *spatial); the arguments are those of `finished_planes`."""
    return torch.cat(list(finished_planes(network, image, window, overlap=overlap, batch=batch, device=device,
                                          precision=precision, on_progress=on_progress, should_stop=should_stop)), 1)


@torch.no_grad()
def finished_planes(network: nn.Module, image: torch.Tensor, window: Sequence[int], *, overlap: float = 0.5,
                    batch: int = 1, device: torch.device | None = None, precision: Precision = "fp32",
                    on_progress: OnProgress | None = None,
                    should_stop: ShouldStop | None = None) -> Iterator[torch.Tensor]:
    """Yield the blended logits (K, n, *rest) float32 in order along the first spatial axis, until all are out.

    Args:
        network: in eval mode, on `device`; maps (B, C, *window) to (B, K, *window).
        image: (C, *spatial), padded with zeros on both sides where it is smaller than the window.
        window: the network's input size, one number an axis.
        overlap: part of the window that neighbours share, 0 <= overlap < 1.
        batch: windows a forward pass; halved by itself when the GPU's memory does not suffice.
        device: where the windows are computed and blended (default: the image's).
        precision: arithmetic of the network; blending is fp32.
        on_progress: called with (windows done, windows in all).
        should_stop: asked between batches.

    Raises:
        Stopped: `should_stop` said so.
    """
    device = image.device if device is None else device
    size = tuple(image.shape[1:])
    before = [max(0, wanted - have) // 2 for wanted, have in zip(window, size, strict=True)]
    padded = _padded(image, window, before)
    starts = [window_starts(length, extent, overlap) for length, extent in zip(padded.shape[1:], window, strict=True)]
    total, done = math.prod(map(len, starts)), 0
    # What lies in the padding is cut off each window: where there is any, an axis has one window.
    kept = [min(wanted, have) for wanted, have in zip(window, size, strict=True)]
    weight = _crop(gaussian_weight(window)[None], before, kept).to(device)
    blend = _Blend((kept[0], *size[1:]), weight)
    predictor = WindowPredictor(network, device, precision)
    for layer, first in enumerate(starts[0]):
        for positions in _batches(list(itertools.product([first], *starts[1:])), batch):
            if should_stop is not None and should_stop():
                raise Stopped("Stopped on request.")
            outputs = predictor(torch.stack([_crop(padded, position, window) for position in positions]))
            for output, position in zip(outputs, positions, strict=True):
                blend.add(_crop(output, before, kept), (0, *position[1:]))
            done += len(positions)
            if on_progress is not None:
                on_progress(done, total)
        following = starts[0][layer + 1] if layer + 1 < len(starts[0]) else size[0]
        yield from blend.release(following - first)


class _Blend:
    """Weighted sums of the windows over the planes that are still open."""

    def __init__(self, shape: tuple[int, ...], weight: torch.Tensor) -> None:
        self.shape = shape
        self.weight = weight
        self.weights = torch.zeros((1, *shape), device=weight.device)
        self.sums: torch.Tensor | None = None

    def add(self, output: torch.Tensor, start: Sequence[int]) -> None:
        """Add a window's logits (K, *size) at `start`, counted from the first open plane."""
        if self.sums is None:
            self.sums = torch.zeros((output.shape[0], *self.shape), device=output.device)
        size = output.shape[1:]
        _crop(self.sums, start, size).add_(output * self.weight)
        _crop(self.weights, start, size).add_(self.weight)

    def release(self, planes: int) -> Iterator[torch.Tensor]:
        """Yield the first `planes` planes, a few at a time, and open as many new ones. No second copy of the sums."""
        assert self.sums is not None
        for start in range(0, planes, PLANES_AT_ONCE):
            part = slice(start, min(start + PLANES_AT_ONCE, planes))
            yield self.sums[:, part] / self.weights[:, part]
        for tensor in (self.sums, self.weights):
            for plane in range(tensor.shape[1]):
                if plane + planes < tensor.shape[1]:
                    tensor[:, plane] = tensor[:, plane + planes]
                else:
                    tensor[:, plane] = 0


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin on an axis of `length` >= `window` voxels; the last one ends at the border."""
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} is not in [0, 1)")
    step = max(1, int(window * (1 - overlap)))
    return [*range(0, length - window, step), length - window]


def gaussian_weight(window: Sequence[int]) -> torch.Tensor:
    """Weights (*window) of a window's voxels when windows are blended: 1 in the centre, at least 0.001."""
    weight = torch.ones(())
    for extent in window:
        distance = torch.arange(extent, dtype=torch.float32) - (extent - 1) / 2
        weight = weight[..., None] * torch.exp(-distance**2 / (2 * (extent / 8) ** 2))
    return weight.clamp_min(max(float(weight.min()), SMALLEST_WEIGHT))


class WindowPredictor:
    """Runs batches of windows; computes a window without any contrast (air, padding) once for each value it has."""

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        self.network = network
        self.device = device
        self.precision = precision
        self.known: dict[tuple[float, ...], torch.Tensor] = {}

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, C, *window) to (B, K, *window) float32."""
        flat = windows.flatten(2)
        values, highest = flat.amin(2), flat.amax(2)
        empty = (values == highest).all(1).tolist()
        keys = [tuple(value) if is_empty else None for value, is_empty in zip(values.tolist(), empty, strict=True)]
        needed = [index for index, key in enumerate(keys)
                  if key is None or (key not in self.known and keys.index(key) == index)]
        computed = dict(zip(needed, self._run(windows[needed].to(self.device)), strict=True)) if needed else {}
        for index, output in computed.items():
            key = keys[index]
            if key is not None and len(self.known) < 4:
                self.known[key] = output
        return torch.stack([self._output(index, key, keys, computed) for index, key in enumerate(keys)])

    def _output(self, index: int, key: tuple[float, ...] | None, keys: list[tuple[float, ...] | None],
                computed: dict[int, torch.Tensor]) -> torch.Tensor:
        if index in computed:
            return computed[index]
        return self.known[key] if key is not None and key in self.known else computed[keys.index(key)]

    def _run(self, windows: torch.Tensor) -> torch.Tensor:
        try:
            with autocast(self.device, self.precision):
                return self.network(windows).float()
        except torch.OutOfMemoryError as error:
            if len(windows) == 1:
                raise RuntimeError("The GPU's memory does not hold one window of this model. "
                                   "Use another GPU, --precision bf16, or --device cpu.") from error
        torch.cuda.empty_cache()
        half = len(windows) // 2
        return torch.cat([self._run(windows[:half]), self._run(windows[half:])])


def _padded(image: torch.Tensor, window: Sequence[int], before: Sequence[int]) -> torch.Tensor:
    widths: list[int] = []
    for length, extent, front in reversed(list(zip(image.shape[1:], window, before, strict=True))):
        widths += [front, max(0, extent - length) - front]
    return functional.pad(image, widths) if any(widths) else image


def _crop(tensor: torch.Tensor, start: Sequence[int], size: Sequence[int]) -> torch.Tensor:
    """A view of (C, *spatial) that begins at `start`."""
    return tensor[(slice(None), *(slice(begin, begin + extent) for begin, extent in zip(start, size, strict=True)))]


def _batches(items: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(items), size):
        yield items[start:start + size]
