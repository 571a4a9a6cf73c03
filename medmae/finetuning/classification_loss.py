"""Losses of classification: exclusive classes or classes that may apply together, rare ones not ignored."""

from __future__ import annotations

import torch
from torch import nn

from medmae.inference.pooling import pool_slices

LARGEST_WEIGHT = 100.0


class ClassificationLoss:
    """Cross-entropy of exclusive classes, binary cross-entropy of classes that may apply together; in fp32.

    A network that sees slices gives logits of several of a volume; they are pooled as in inference before the loss.

    With `balanced` weights a class counts inversely to its frequency among the training cases that have it (exclusive
    classes), or its presence as much as its absence (classes that may apply together; at most 100 times). A batch is
    summed and divided by its size: dividing by its weights, as is usual, would cancel them in small batches.

    Args:
        targets: of all training cases: class indices (N,), or 0 and 1 of shape (N, K) where several may apply.
        classes: K.
        pooling: of slices, see `pool_slices`.
        balanced: whether rare classes weigh more.
    """

    def __init__(self, targets: torch.Tensor, classes: int, pooling: str = "mean", balanced: bool = True) -> None:
        self._pooling = pooling
        self.multi_label = targets.ndim == 2
        self.weights = torch.ones(classes)
        if balanced:
            self.weights = _presence_weights(targets) if self.multi_label else _class_weights(targets, classes)

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """logits (B * S, K) of S slices a case, the slices of a case together; targets (B,) or (B, K)."""
        with torch.autocast(logits.device.type, enabled=False):
            pooled = pool_slices(logits.unflatten(0, (targets.shape[0], -1)), self._pooling)
            weights = self.weights.to(pooled.device)
            if self.multi_label:
                loss = nn.functional.binary_cross_entropy_with_logits(pooled, targets.float(), pos_weight=weights)
            else:
                each = nn.functional.cross_entropy(pooled, targets, reduction="none")
                loss = (each * weights[targets]).mean()
        return {"loss": loss}


def _class_weights(targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Mean 1 over the cases; classes that no case has do not take part."""
    counts = torch.bincount(targets, minlength=classes).float()
    return len(targets) / (int((counts > 0).sum()) * counts.clamp_min(1))


def _presence_weights(targets: torch.Tensor) -> torch.Tensor:
    present = targets.sum(0).float()
    weights = (len(targets) - present).clamp_min(1) / present.clamp_min(1)
    weights[present == 0] = 1.0
    return weights.clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT)
