"""Scores of a segmentation model: per case, and the object that ``medmae evaluate --json`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.metrics.bootstrap import mean_interval
from medmae.metrics.dice import dice, voxel_ml
from medmae.metrics.hausdorff import hd95_per_label
from medmae.metrics.joint_counts import count_labels


@dataclass(frozen=True)
class SegmentationCase:
    """Scores of one case.

    Attributes:
        image: what the case is called in the results.
        subject: whom it shows.
        dice: label to Dice, None where the reference does not have the label.
        hd95_mm: label to distance, None where either side is empty or the spacing is unknown.
        false_positive_voxels: predicted voxels of each label that the reference does not have.
        false_positive_ml: their volume; None where the spacing is unknown.
    """

    image: str
    subject: str
    dice: dict[str, float | None]
    hd95_mm: dict[str, float | None]
    false_positive_voxels: dict[str, int]
    false_positive_ml: float | None

    def to_json(self) -> dict[str, Any]:
        """The case as it stands in the results."""
        return {"image": self.image, "subject": self.subject, "dice": self.dice, "hd95_mm": self.hd95_mm,
                "false_positive_ml": self.false_positive_ml, "false_positive_voxels": self.false_positive_voxels}


def foreground_labels(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels that are scored: all but the background (by its name, otherwise the value 0)."""
    named = [name for name in labels if name.strip().lower() == "background"]
    first = (named or [name for name, value in labels.items() if value == 0])[:1]
    return {name: value for name, value in labels.items() if name not in first}


def score_segmentation(image: str, reference: NDArray, prediction: NDArray, labels: Mapping[str, int],
                       spacing_mm: Sequence[float] | None, subject: str | None = None) -> SegmentationCase:
    """Score one case: two label maps (k, j, i) of stored values on the same grid.

    Args:
        image: what the case is called in the results.
        reference: the annotated label map.
        prediction: the model's label map.
        labels: name to stored value; the background is left out.
        spacing_mm: (k, j, i), or None where it is unknown.
        subject: whom it shows; `image` by default.

    Raises:
        ValueError: the shapes differ.
    """
    scored = foreground_labels(labels)
    counts = count_labels(reference, prediction, scored)
    absent = {name: found.prediction for name, found in counts.items() if not found.reference}
    return SegmentationCase(
        image, image if subject is None else subject,
        {name: dice(found) for name, found in counts.items()},
        hd95_per_label(reference, prediction, scored, spacing_mm),
        absent, None if spacing_mm is None else sum(absent.values()) * voxel_ml(spacing_mm))


def segmentation_scores(cases: Iterable[SegmentationCase]) -> dict[str, Any]:
    """The results of a segmentation: mean over the cases of each label, then the mean over labels.

    `dice[label]` is over the cases whose reference has the label, None where none has; `mean_dice` is over the labels
    that are not None, with its 95 % bootstrap interval over subjects.
    """
    scored = list(cases)
    labels = list(dict.fromkeys(name for case in scored for name in case.dice))
    means = {name: _mean(case.dice.get(name) for case in scored) for name in labels}
    table = np.array([[_number(case.dice.get(name)) for name in labels] for case in scored], dtype=float)
    interval = mean_interval(table, [case.subject for case in scored]) if table.size else None
    return {"task": "segmentation", "mean_dice": _mean(means.values()),
            "mean_dice_interval": None if interval is None else list(interval), "dice": means,
            "hd95_mm": {name: _mean(case.hd95_mm.get(name) for case in scored) for name in labels},
            "cases": [case.to_json() for case in scored]}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
