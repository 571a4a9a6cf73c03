"""A 2-D network on a volume: slice by slice, several at once, each with the neighbours that the network knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from medmae.datasets.preprocessing import pad_centred
from medmae.datasets.slices import slice_stacks
from medmae.errors import Stopped
from medmae.inference.config import Precision
from medmae.inference.interruption import ShouldStop
from medmae.inference.out_of_memory import WindowTooLarge, is_out_of_memory
from medmae.inference.predictor import WindowPredictor
from medmae.inference.sliding_window import OnProgress, finished_planes
from medmae.inference.windows import IsEmpty
from medmae.networks.voxel_head import Features


def slice_logits(network: Features, array: np.ndarray, window: Sequence[int], *, context: int = 0,
                 overlap: float = 0.5, batch: int = 1, device: torch.device, precision: Precision = "fp32",
                 on_progress: OnProgress | None = None,
                 should_stop: ShouldStop | None = None) -> Iterator[torch.Tensor]:
    """Yield the logits (K, n, rows, columns) of the slices of a volume; for the arguments see `finished_slices`."""
    predictor = WindowPredictor(network, device, precision, batch=batch)
    return finished_slices(predictor, array, window, context=context, overlap=overlap, on_progress=on_progress,
                           should_stop=should_stop)


@torch.no_grad()
def finished_slices(predictor: WindowPredictor, array: np.ndarray, window: Sequence[int], *, context: int = 0,
                    overlap: float = 0.5, wanted: Sequence[slice] | None = None, is_empty: IsEmpty | None = None,
                    air: Sequence[float] = (), on_progress: OnProgress | None = None,
                    should_stop: ShouldStop | None = None) -> Iterator[torch.Tensor]:
    """Yield the outputs (F, n, rows, columns) float32 of the slices of a volume in order, a few slices at a time.

    Slices that fit the window are padded to it, the image in the middle, and go through the network together. Over
    larger ones the window slides. The outputs for the whole volume never exist together.

    Args:
        predictor: the network on its device; it sees (B, C * (2 * context + 1), *window).
        array: (C, k, rows, columns), prepared.
        window: the network's input size (rows, columns).
        context: neighbouring slices on each side that the network sees as channels.
        overlap: part of the window that neighbours share, where it slides.
        wanted: the box (k, rows, columns) whose outputs are wanted; other slices are not computed. Default: all.
        is_empty: says of slices, (1, rows, columns) at (k, 0, 0), that there is only air in them; they count as
            constant.
        air: the value of each channel in them.
        on_progress: called with (slices done, slices in all).
        should_stop: asked between batches.

    Raises:
        Stopped: `should_stop` said so.
        WindowTooLarge: memory does not hold one window.
    """
    depth, rows, columns = wanted or [slice(0, length) for length in array.shape[1:]]
    sides = array.shape[2:]
    fits = all(length <= extent for length, extent in zip(sides, window, strict=True))
    top, left = (max(0, extent - length) // 2 for extent, length in zip(window, sides, strict=True))
    start = depth.start
    while start < depth.stop:
        if should_stop is not None and should_stop():
            raise Stopped("Stopped on request.")
        stop = min(start + predictor.batch, depth.stop) if fits else start + 1
        stacks = slice_stacks(array, range(start, stop), context)
        for index in range(stop - start):
            if is_empty is not None and is_empty((start + index, 0, 0), (1, *sides)):
                stacks[index] = np.tile(air, 2 * context + 1)[:, None, None]
        if fits:
            outputs = _predicted(predictor, torch.from_numpy(pad_centred(stacks, window)))
            yield torch.stack([output[:, top + rows.start:top + rows.stop, left + columns.start:left + columns.stop]
                               .float() for output in outputs], 1)
        else:
            yield torch.cat(list(finished_planes(predictor, torch.from_numpy(stacks[0]), window, overlap=overlap,
                                                 wanted=(rows, columns), should_stop=should_stop)), 1)[:, None]
        if on_progress is not None:
            on_progress(stop - depth.start, depth.stop - depth.start)
        start = stop


def _predicted(predictor: WindowPredictor, windows: torch.Tensor) -> list[torch.Tensor]:
    try:
        return predictor(windows)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise WindowTooLarge("Memory does not hold one slice of this model.") from error
