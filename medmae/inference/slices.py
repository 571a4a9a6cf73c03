"""A 2-D network on a volume: slice by slice, several at once, each with the neighbours that the network knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from medmae.datasets.preprocessing import pad_centred
from medmae.datasets.slices import slice_stack, slice_stacks
from medmae.errors import Stopped
from medmae.inference.config import Precision
from medmae.inference.sliding_window import OnProgress, ShouldStop, WindowPredictor, sliding_window


@torch.no_grad()
def slice_logits(network: nn.Module, array: np.ndarray, window: Sequence[int], *, context: int = 0,
                 overlap: float = 0.5, batch: int = 1, device: torch.device, precision: Precision = "fp32",
                 on_progress: OnProgress | None = None,
                 should_stop: ShouldStop | None = None) -> Iterator[torch.Tensor]:
    """Yield the logits (K, n, rows, columns) float32 of the slices of a volume in order, a few slices at a time.

    Slices that fit the window are padded to it, the image in the middle, and go through the network together. Over
    larger ones the window slides. The logits of the whole volume never exist together.

    Args:
        network: in eval mode, on `device`; maps (B, C * (2 * context + 1), *window) to (B, K, *window).
        array: (C, k, rows, columns), prepared.
        window: the network's input size (rows, columns).
        context: neighbouring slices on each side that the network sees as channels.
        overlap: part of the window that neighbours share, where it slides.
        batch: slices (windows) a forward pass.
        device: where the network is.
        precision: arithmetic of the network.
        on_progress: called with (slices done, slices in all).
        should_stop: asked between batches.

    Raises:
        Stopped: `should_stop` said so.
    """
    count, sides = array.shape[1], array.shape[2:]
    fits = all(length <= extent for length, extent in zip(sides, window, strict=True))
    predictor = WindowPredictor(network, device, precision)
    top, left = (max(0, extent - length) // 2 for extent, length in zip(window, sides, strict=True))
    step = batch if fits else 1
    for start in range(0, count, step):
        if should_stop is not None and should_stop():
            raise Stopped("Stopped on request.")
        if fits:
            stacks = pad_centred(slice_stacks(array, range(start, min(start + step, count)), context), window)
            logits = predictor(torch.from_numpy(stacks))
            yield logits[:, :, top:top + sides[0], left:left + sides[1]].transpose(0, 1)
        else:
            yield sliding_window(network, torch.from_numpy(slice_stack(array, start, context)), window,
                                 overlap=overlap, batch=batch, device=device, precision=precision,
                                 should_stop=should_stop)[:, None]
        if on_progress is not None:
            on_progress(min(start + step, count), count)
