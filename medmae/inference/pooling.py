"""From the logits of slices to one answer for a volume; the same in training, validation and inference."""

from __future__ import annotations

import math

import torch


def pool_slices(logits: torch.Tensor, pooling: str) -> torch.Tensor:
    """Logits of slices (..., n, K) to logits of their volume (..., K) float32.

    "mean": the mean over the slices. "max": of each class its greatest. "topN%": of each class the mean of its greatest
    N per cent, one slice at least.
    """
    logits = logits.float()
    if pooling == "mean":
        return logits.mean(-2)
    return logits.topk(strongest(pooling, logits.shape[-2]), dim=-2).values.mean(-2)


def strongest(pooling: str, slices: int) -> int:
    """How many of so many slices count for a class."""
    if pooling == "mean":
        return slices
    return 1 if pooling == "max" else max(1, math.ceil(slices * int(pooling[3:-1]) / 100))


def deciding_slices(logits: torch.Tensor, pooling: str, *, multi_label: bool) -> list[int]:
    """For each class of slices' logits (n, K) the number of the slice that speaks for it most.

    Where the mean decides between classes that exclude each other, that is where the class is most probable; otherwise
    where its logit is greatest.
    """
    evidence = torch.log_softmax(logits.double(), 1) if pooling == "mean" and not multi_label else logits
    return [int(number) for number in evidence.argmax(0)]
