"""The preview picture of a finetuned model: a slice of a case, with what the model answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.datasets.preprocessing import Preprocessing
from medmae.finetuning.segmentation import SegmentationTask
from medmae.finetuning.task import FinetuningTask
from medmae.models.preview import is_transposed, preview_png, upright, without_small_print
from medmae.reports.pictures import PLANES, best_index

_THICK = 1.5  # how much thicker than wide voxels are when slices are shown as acquired
_WITHOUT_TEXT = ("CT", "MR", "PT", "NM")  # scanners; names are burnt into pictures of other devices often enough
_WINDOWS = 1.5  # how far the part of a volume that is predicted reaches, in windows of the network


def preview_of(task: FinetuningTask, labels: Sequence[Mapping[str, Any]], preprocessing: Preprocessing) -> bytes:
    """Draw a typical validation case, without any the first training case, as a PNG of pixels only.

    Of a segmentation the slice that shows most labels, with the labels that the model gives it; of a classification
    the middle slice. Names that may have been burnt into a picture cannot be read. One slice, or in 3-D a part of the
    volume around it, is predicted.
    """
    corpus = task.corpus if task.validation is None else task.validation
    index = 0 if task.validation is None else _typical(task.last_validation)
    image, spacing = np.array(corpus.image(index), np.float32), corpus.items[index].spacing_mm
    axis = _axis(preprocessing, spacing)
    labelled = None
    number = image.shape[axis + 1] // 2
    if isinstance(task, SegmentationTask):
        reference = corpus.label(index)
        number = best_index(reference, PLANES[axis])
        image, labelled = _predicted(task, image, reference, axis, number)
    else:
        image = image.take(number, axis + 1)
    picture = np.moveaxis(image, 0, -1) if preprocessing.spatial_dims == 2 and len(image) == 3 else image[0]
    if corpus.items[index].modality not in _WITHOUT_TEXT:
        picture = without_small_print(picture)
    down, across = (mm for number, mm in enumerate(spacing) if number != axis)
    turned = is_transposed(preprocessing.orientation, axis)
    return preview_png(
        upright(picture, preprocessing.orientation, axis),
        None if labelled is None else upright(labelled, preprocessing.orientation, axis),
        {number: label["color"] for number, label in enumerate(labels) if number},
        (across, down) if turned else (down, across))


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


def _predicted(task: SegmentationTask, image: NDArray, reference: NDArray, axis: int,
               number: int) -> tuple[NDArray, NDArray]:
    """The part of a slice (C, a, b) around its labels, and the classes (a, b) that the model gives it."""
    if len(task.size) == 2:
        reach = task.config.context or 0
        part: tuple[slice, ...] = (slice(max(0, number - reach), number + reach + 1), slice(None), slice(None))
    else:
        found = np.argwhere(reference.take(number, axis))
        middle = list((found.min(0) + found.max(0)) // 2 if len(found) else np.array(reference.shape)[
            [other for other in range(3) if other != axis]] // 2)
        middle.insert(axis, number)
        lengths = [window if other == axis else math.ceil(_WINDOWS * window) for other, window in enumerate(task.size)]
        part = tuple(_around(int(place), length, whole)
                     for place, length, whole in zip(middle, lengths, reference.shape, strict=True))
    network = task.module.chosen.eval()
    cut = image[(slice(None), *part)]
    classes = task.predict(network, np.ascontiguousarray(cut))
    inside = number - (part[axis].start or 0)
    return cut.take(inside, axis + 1), classes.take(inside, axis)


def _around(place: int, length: int, whole: int) -> slice:
    start = min(max(0, place - length // 2), max(0, whole - length))
    return slice(start, min(whole, start + length))
