"""A network with a fixed window on an image of any size: overlapping windows, blended with gaussian weights.

The results are those of MONAI's `sliding_window_inference`. What differs is memory and speed: windows are visited layer
by layer along the first axis, and planes that no later window touches are handed on at once, so the outputs for the
whole image never exist together; and blending touches every output once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch

from medmae.errors import Stopped
from medmae.inference.blending import Blend
from medmae.inference.device import Precision
from medmae.inference.interruption import ShouldStop
from medmae.inference.out_of_memory import WindowTooLarge, is_out_of_memory
from medmae.inference.predictor import WindowPredictor
from medmae.inference.windows import IsEmpty, axes_of, cut
from medmae.networks.voxel_head import Features

OnProgress = Callable[[int, int], None]


def sliding_window(network: Features, image: torch.Tensor, window: Sequence[int], *, overlap: float = 0.5,
                   batch: int = 1, device: torch.device | None = None, precision: Precision = "fp32",
                   on_progress: OnProgress | None = None, should_stop: ShouldStop | None = None) -> torch.Tensor:
    """Logits (K, *spatial) float32 of an image (C, *spatial); the arguments are those of `finished_planes`."""
    device = image.device if device is None else device
    predictor = WindowPredictor(network, device, precision, batch=batch)
    return torch.cat(list(finished_planes(predictor, image, window, overlap=overlap, on_progress=on_progress,
                                          should_stop=should_stop)), 1)


@torch.no_grad()
def finished_planes(predictor: WindowPredictor, image: torch.Tensor, window: Sequence[int], *, overlap: float = 0.5,
                    wanted: Sequence[slice] | None = None, is_empty: IsEmpty | None = None,
                    air: Sequence[float] = (), blending_device: torch.device | None = None,
                    dtype: torch.dtype = torch.float32, on_progress: OnProgress | None = None,
                    should_stop: ShouldStop | None = None) -> Iterator[torch.Tensor]:
    """Yield the blended outputs (F, n, *rest) float32 in order along the first spatial axis, until all are out.

    Args:
        predictor: the network on its device.
        image: (C, *spatial), padded with zeros on both sides where it is smaller than the window.
        window: the network's input size, one number an axis.
        overlap: part of the window that neighbours share, 0 <= overlap < 1.
        wanted: the box of the image whose outputs are wanted (default: all); windows that do not touch it are not
            computed.
        is_empty: says of windows that there is only air in them; they count as constant.
        air: the value of each channel in them.
        blending_device: where outputs are blended (default: where they are computed).
        dtype: of the open sums, see `Blend`.
        on_progress: called with (windows done, windows in all).
        should_stop: asked between batches.

    Raises:
        Stopped: `should_stop` said so.
        WindowTooLarge: memory does not hold one window and the open planes.
    """
    axes = axes_of(image.shape[1:], window, overlap, wanted)
    empty = torch.tensor(air, dtype=image.dtype).view(-1, *[1] * len(window)).expand(-1, *window)

    def seen(position: Sequence[int]) -> torch.Tensor:
        return empty if is_empty is not None and is_empty(position, window) else cut(image, position, window)

    layers = axes[0].starts
    total, done = math.prod(len(axis.starts) for axis in axes), 0
    try:
        blend = Blend(axes, blending_device or predictor.device, dtype)
        for number, layer in enumerate(layers):
            positions = list(itertools.product([layer], *(axis.starts for axis in axes[1:])))
            while positions:
                if should_stop is not None and should_stop():
                    raise Stopped("Stopped on request.")
                now, positions = positions[:predictor.batch], positions[predictor.batch:]
                outputs = predictor(torch.stack([seen(position) for position in now]))
                for output, position in zip(outputs, now, strict=True):
                    blend.add(output, position)
                del outputs
                done += len(now)
                if on_progress is not None:
                    on_progress(done, total)
            yield from blend.release(layers[number + 1] if number + 1 < len(layers) else image.shape[1])
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WindowTooLarge("Memory does not hold one window of this model and the planes that are open.") from error
