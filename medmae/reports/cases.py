"""Cases for pictures: image, reference and the model's prediction, in display order."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medmae.datasets import Case, Dataset
from medmae.errors import BadInput
from medmae.models import ModelInfo
from medmae.reports.drawing import CYCLE, Color, distinct
from medmae.reports.pictures import Compared
from medmae.volumes import Volume, read_image, read_label, reorient

log = logging.getLogger(__name__)


def label_colors(info: ModelInfo) -> dict[int, Color]:
    """Stored value to colour of the foreground labels of a segmentation model."""
    return dict(zip((int(label["value"]) for label in info.labels[1:]), _colors(info), strict=True))


def named_colors(info: ModelInfo) -> dict[str, Color]:
    """Name to colour of the foreground labels of a segmentation model."""
    return dict(zip((str(label["name"]) for label in info.labels[1:]), _colors(info), strict=True))


def _colors(info: ModelInfo) -> list[Color]:
    from matplotlib.colors import to_rgb

    given = [label.get("color") or to_rgb(CYCLE[index % len(CYCLE)]) for index, label in enumerate(info.labels[1:])]
    return distinct([(float(color[0]), float(color[1]), float(color[2])) for color in given])


def find_case(dataset: Dataset, keys: Sequence[str], name: str) -> Case | None:
    """The case that scores call `name`: its id, or the path of its image."""
    for key in keys:
        for case in dataset.lists.get(key, ()):
            if name == case.id or any(name == str(path) or str(path).endswith("/" + name) for path in case.images):
                return case
    return None


def compared(case: Case, info: ModelInfo, segmenter: Any, note: str = "") -> Compared:
    """Read a case and let `segmenter` (medmae.inference.Segmenter, or None for no prediction) segment it.

    Raises:
        BadInput: a file cannot be read.
    """
    volumes = [read_image(path) for path in case.images]
    reference = None if case.label is None else read_label(case.label)
    prediction = None if segmenter is None else segmenter.segment(volumes if len(volumes) > 1 else volumes[0])
    return displayed(case.id, volumes[0], None if reference is None else reference.array[0], prediction,
                     info.modality, note)


def compared_prediction(case: Case, prediction: Path, modality: str, note: str = "") -> Compared:
    """Read a case and a prediction that was written for it.

    Raises:
        BadInput: a file cannot be read.
    """
    volume = read_image(case.images[0])
    reference = None if case.label is None else read_label(case.label).array[0]
    return displayed(case.id, volume, reference, read_label(prediction).array[0], modality, note)


def displayed(name: str, volume: Volume, reference: np.ndarray | None, prediction: np.ndarray | None, modality: str,
              note: str = "") -> Compared:
    """A volume and its label maps (k, j, i) on the same grid, in RAS order unless it is a 2-D picture."""
    if volume.is_2d:
        spacing = volume.geometry.spacing_mm
        return Compared(name, volume.array, reference, prediction, _triple(spacing), True, modality, note)
    image, geometry = reorient(volume.array, volume.geometry, "RAS")
    turned = [None if labels is None else reorient(labels, volume.geometry, "RAS")[0]
              for labels in (reference, prediction)]
    return Compared(name, image, turned[0], turned[1], _triple(geometry.spacing_mm), False, modality, note)


def _triple(spacing: Sequence[float]) -> tuple[float, float, float]:
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def compared_cases(cases: Sequence[tuple[Case, str]], info: ModelInfo, model: Path, device: str) -> list[Compared]:
    """Segment and compare `cases`, each with a note; one that cannot be read is left out, with a line in the log."""
    from medmae.inference.segmenter import Segmenter

    segmenter = Segmenter(model, device=device)
    result = []
    for case, note in cases:
        try:
            result.append(compared(case, info, segmenter, note))
        except BadInput as error:
            log.warning("not in the report: %s", error)
    return result


def mean_dice(scored: Mapping[str, Any]) -> float | None:
    """Mean Dice over the labels that one case of a result has."""
    values = [value for value in scored["dice"].values() if value is not None]
    return float(np.mean(values)) if values else None


def worst_to_best(scores: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scored cases from the lowest mean Dice to the highest; those without any score are left out."""
    scored = [(mean_dice(case), case) for case in scores["cases"]]
    return [case for _, case in sorted(((value, case) for value, case in scored if value is not None),
                                       key=lambda pair: pair[0])]


def telling_cases(scores: Mapping[str, Any], dataset: Dataset, keys: Sequence[str]) -> list[tuple[Case, str]]:
    """The worst, the middle and the best of the scored cases, with their mean Dice as a note."""
    ranked = worst_to_best(scores)
    chosen = [ranked[index] for index in sorted({0, len(ranked) // 2, len(ranked) - 1})] if ranked else []
    found = [(find_case(dataset, keys, str(case["image"])), f"Dice {mean_dice(case):.3f}") for case in chosen]
    return [(case, note) for case, note in found if case is not None]
