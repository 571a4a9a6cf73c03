"""How sure a model is of each label: the mean probability of the class over the voxels where it is the most likely."""

from __future__ import annotations

import numpy as np
import torch

from medmae.datasets.prepared import Prepared


class Confidence:
    """Takes probabilities into sums for each class."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], np.ndarray] = {}

    def begin(self, prepared: Prepared) -> None:
        """Forget what was taken before."""
        self.sums = {}

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """See `Taker`."""
        highest, winner = probabilities.flatten(1).max(0)
        classes = len(probabilities)
        counts = torch.bincount(winner, minlength=classes)
        sums = torch.zeros(classes, dtype=torch.float64, device=highest.device).index_add_(0, winner, highest.double())
        self.sums[row, lines.start] = torch.stack([sums, counts.double()]).cpu().numpy()

    def finished(self) -> list[float | None]:
        """The mean of each class, background first; None for classes that won nowhere; nothing where no rows came."""
        if not self.sums:
            return []
        sums, counts = np.sum(list(self.sums.values()), axis=0)
        return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
