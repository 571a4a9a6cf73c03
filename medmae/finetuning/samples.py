"""The sample picture of segmentation: a slice of a case, its labels, and those that the network gives it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from medmae.datasets.preprocessing import Preprocessing
from medmae.finetuning.preview import ShownPart
from medmae.finetuning.segmentation import SegmentationTask
from medmae.models.preview import row_png, stretched


class SegmentationSamples:
    """Draws the same slice every time: of the first validation case that has labels, without one of a training case.

    Args:
        task: its averaged weights, which become the model, are drawn.
        labels: of the model, each with its colour, by their class.
        preprocessing: of the corpus.
    """

    def __init__(self, task: SegmentationTask, labels: Sequence[Mapping[str, Any]],
                 preprocessing: Preprocessing) -> None:
        self._task, self._preprocessing = task, preprocessing
        self._colors = {number: label["color"] for number, label in enumerate(labels) if number}

    def __call__(self) -> bytes:
        """Slice, reference and prediction side by side, as a PNG."""
        part = self._part
        plane, reference = stretched(part.picture), part.reference
        predicted = part.predicted(self._task.module.average.eval())
        return row_png([plane] * 3, [None, reference, predicted], self._colors, part.pixel_mm, around=reference)

    @cached_property
    def _part(self) -> ShownPart:
        corpus = self._task.corpus if self._task.validation is None else self._task.validation
        index = next((number for number in range(len(corpus)) if corpus.label(number).any()), 0)
        return ShownPart(self._task, corpus, index, self._preprocessing)
