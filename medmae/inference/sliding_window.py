"""A network with a fixed window on an image of any size: overlapping windows, blended with gaussian weights.

Windows and weights are those of MONAI's `sliding_window_inference` (mode "gaussian", sigma an eighth of the window),
and so are the results. What differs is memory: windows are visited layer by layer along the first axis, and planes that
no later window touches are handed on at once, so the logits of the whole image never exist together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from medmae.errors import Stopped
from medmae.inference.device import Precision, autocast

SMALLEST_WEIGHT = 1e-3
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
    weight = gaussian_weight(window).to(device)
    predictor = _Predictor(network, device, precision, batch)
    total = 1
    for axis_starts in starts:
        total *= len(axis_starts)
    sums, weights, done = None, torch.zeros((window[0], *padded.shape[2:]), device=device), 0
    for layer, first in enumerate(starts[0]):
        for positions in _batches(list(itertools.product([first], *starts[1:])), batch):
            if should_stop is not None and should_stop():
                raise Stopped("Stopped on request.")
            outputs = predictor(torch.stack([_crop(padded, position, window) for position in positions]))
            if sums is None:
                sums = torch.zeros((outputs.shape[1], window[0], *padded.shape[2:]), device=device)
            for output, position in zip(outputs, positions, strict=True):
                inside = (0, *position[1:])
                _crop(sums, inside, window).add_(output * weight)
                _crop(weights[None], inside, window)[0].add_(weight)
            done += len(positions)
            if on_progress is not None:
                on_progress(done, total)
        assert sums is not None
        following = starts[0][layer + 1] if layer + 1 < len(starts[0]) else padded.shape[1]
        complete = following - first
        planes = sums[:, :complete] / weights[:complete]
        sums, weights = _shifted(sums, 1, complete), _shifted(weights, 0, complete)
        low, high = max(first, before[0]), min(following, before[0] + size[0])
        if high > low:
            yield _crop(planes, (low - first, *before[1:]), (high - low, *size[1:]))


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


class _Predictor:
    """Runs batches of windows; computes a window without any contrast (air, padding) once for each value it has."""

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision, batch: int) -> None:
        self.network = network
        self.device = device
        self.precision = precision
        self.batch = batch
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


def _shifted(tensor: torch.Tensor, axis: int, planes: int) -> torch.Tensor:
    """Drop the first `planes` planes along `axis` and append as many of zeros."""
    kept = tensor.narrow(axis, planes, tensor.shape[axis] - planes)
    return torch.cat([kept, torch.zeros_like(tensor.narrow(axis, 0, planes))], axis)


def _batches(items: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for start in range(0, len(items), size):
        yield items[start:start + size]
