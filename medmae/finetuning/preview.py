"""The preview picture of a finetuned model: a slice of a case, with what the model answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from medmae.datasets import Corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.finetuning.segmentation import SegmentationTask
from medmae.finetuning.task import FinetuningTask
from medmae.models.preview import is_transposed, preview_png, shows_no_print, upright, without_small_print
from medmae.reports.pictures import PLANES, best_index

_THICK = 1.5  # how much thicker than wide voxels are when slices are shown as acquired
_WINDOWS = 1.5  # how far the part of a volume that is predicted reaches, in windows of the network


def preview_of(task: FinetuningTask, labels: Sequence[Mapping[str, Any]], preprocessing: Preprocessing) -> bytes:
    """Draw a typical validation case, without any the first training case, as a PNG of pixels only.

    Of a segmentation the slice that shows most labels, with the labels that the model gives it; of a classification
    the middle slice. Names that may have been burnt into a picture cannot be read. One slice, or in 3-D a part of the
    volume around it, is predicted.
    """
    corpus = task.corpus if task.validation is None else task.validation
    index = 0 if task.validation is None else _typical(task.last_validation)
    if isinstance(task, SegmentationTask):
        part = ShownPart(task, corpus, index, preprocessing)
        return preview_png(part.picture, part.predicted(task.module.chosen.eval()),
                           {number: label["color"] for number, label in enumerate(labels) if number}, part.pixel_mm)
    image, item = np.array(corpus.image(index), np.float32), corpus.items[index]
    axis = _axis(preprocessing, item.spacing_mm)
    plane = image.take(image.shape[axis + 1] // 2, axis + 1)
    return preview_png(_as_shown(plane, item.modality, preprocessing, axis, 0), None, {},
                       _pixel_mm(item.spacing_mm, preprocessing, axis))


class ShownPart:
    """The slice of a labelled case that shows most labels, or of a large one the part around them.

    Attributes:
        picture: (rows, columns), or (rows, columns, 3), as radiologists look at it; names that may have been burnt into
            it cannot be read.
        reference: (rows, columns) the classes of its labels.
        pixel_mm: size of a pixel (down, across).
    """

    def __init__(self, task: SegmentationTask, corpus: Corpus, index: int, preprocessing: Preprocessing) -> None:
        image, reference, item = corpus.image(index), corpus.label(index), corpus.items[index]
        self._task, self._preprocessing = task, preprocessing
        self._axis = axis = _axis(preprocessing, item.spacing_mm)
        number = best_index(reference, PLANES[axis])
        part = _part(task, reference, axis, number)
        self._inside = number - part[axis].start
        self._image = np.ascontiguousarray(image[(slice(None), *part)], np.float32)  # enough to predict the slice
        sides = [length for other, length in enumerate(reference.shape) if other != axis]
        self.picture = _as_shown(self._image.take(self._inside, axis + 1), item.modality, preprocessing, axis,
                                 max(sides))
        self.reference = upright(reference[part].take(self._inside, axis), preprocessing.orientation, axis)
        self.pixel_mm = _pixel_mm(item.spacing_mm, preprocessing, axis)

    def predicted(self, network: nn.Module) -> NDArray:
        """The classes (rows, columns) that a network gives it."""
        classes = self._task.predict(network, self._image).take(self._inside, self._axis)
        return upright(classes, self._preprocessing.orientation, self._axis)


def _as_shown(plane: NDArray, modality: str, preprocessing: Preprocessing, axis: int, longer_side: int) -> NDArray:
    """A slice (C, a, b) of a volume, or a part of one whose slice is longer, as a picture without legible print."""
    picture = np.moveaxis(plane, 0, -1) if preprocessing.spatial_dims == 2 and len(plane) == 3 else plane[0]
    if not shows_no_print(modality):
        picture = without_small_print(picture, longer_side)
    return upright(picture, preprocessing.orientation, axis)


def _pixel_mm(spacing: Sequence[float], preprocessing: Preprocessing, axis: int) -> tuple[float, float]:
    """The size of a pixel (down, across) of a slice as it is shown."""
    down, across = (mm for number, mm in enumerate(spacing) if number != axis)
    return (across, down) if is_transposed(preprocessing.orientation, axis) else (down, across)


def _typical(validation: Mapping[str, Any]) -> int:
    """The number of the validation case in the middle, by its mean Dice; the first of a classification."""
    def mean(case: Mapping[str, Any]) -> float:
        known = [value for value in case.get("dice", {}).values() if value is not None]
        return float(np.mean(known)) if known else -1.0

    cases = validation.get("cases", [])
    order = sorted(range(len(cases)), key=lambda number: mean(cases[number]))
    return order[len(order) // 2] if validation.get("task") == "segmentation" and order else 0


def _axis(preprocessing: Preprocessing, spacing: Sequence[float]) -> int:
    """Across which axis (k, j, i) a slice is shown: slices as acquired where they are thick, axial ones otherwise."""
    if preprocessing.spatial_dims == 2:
        return 0
    thickest = int(np.argmax(spacing))
    if spacing[thickest] > _THICK * sorted(spacing)[1]:
        return thickest
    return next(number for number, letter in enumerate(reversed(preprocessing.orientation)) if letter in "SI")


def _part(task: SegmentationTask, reference: NDArray, axis: int, number: int) -> tuple[slice, ...]:
    """What of a volume must be predicted for the part of a slice around its labels."""
    if len(task.size) == 2:
        reach = task.config.context or 0
        return slice(max(0, number - reach), number + reach + 1), slice(0, None), slice(0, None)
    found = np.argwhere(reference.take(number, axis))
    middle = list((found.min(0) + found.max(0)) // 2 if len(found) else np.array(reference.shape)[
        [other for other in range(3) if other != axis]] // 2)
    middle.insert(axis, number)
    lengths = [window if other == axis else math.ceil(_WINDOWS * window) for other, window in enumerate(task.size)]
    return tuple(_around(int(place), length, whole)
                 for place, length, whole in zip(middle, lengths, reference.shape, strict=True))


def _around(place: int, length: int, whole: int) -> slice:
    start = min(max(0, place - length // 2), max(0, whole - length))
    return slice(start, min(whole, start + length))
