"""What is made of the logits of all classes while an image is restored row by row: maps and figures.

The logits of an image never exist together; each row is turned into probabilities, a bounded number at a time, and
handed to whoever takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from medmae.datasets.prepared import Prepared

VALUES_AT_ONCE = 2**21


class Taker(Protocol):
    """Makes something of probabilities."""

    def begin(self, prepared: Prepared) -> None:
        """Probabilities for ``prepared.target`` follow."""

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """Take probabilities (K, n, i) float32 of the lines `lines` (along j) of row `row` (along k).

        A row may come again, from the first one on, where memory ran out on the way; the last time counts.
        """


class RowOutputs:
    """A `PlacedSink` that hands probabilities to `takers`."""

    def __init__(self, takers: Sequence[Taker]) -> None:
        self.takers = list(takers)

    def begin(self, prepared: Prepared) -> None:
        """Rows of ``prepared.target`` follow."""
        for taker in self.takers:
            taker.begin(prepared)

    def __call__(self, row: int, logits: torch.Tensor) -> None:
        """Take the logits (K, j, i) of a row."""
        step = max(1, VALUES_AT_ONCE // (logits.shape[0] * logits.shape[2]))
        for start in range(0, logits.shape[1], step):
            lines = slice(start, min(start + step, logits.shape[1]))
            probabilities = torch.softmax(logits[:, lines].float(), 0)
            for taker in self.takers:
                taker.take(row, lines, probabilities)
