"""Dice of each label, and what was predicted of labels that the reference does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import NDArray

from medmae.metrics.joint_counts import LabelCounts, count_labels


def dice_per_label(reference: NDArray, prediction: NDArray, labels: Mapping[str, int]) -> dict[str, float | None]:
    """Dice 2|R∩P| / (|R|+|P|) of each label in two label maps (k, j, i) of stored values.

    A label that the prediction misses scores 0; one that the reference does not have is None, and what was predicted of
    it is told by ``false_positive_ml``.

    Raises:
        ValueError: the shapes differ.
    """
    return {name: dice(counts) for name, counts in count_labels(reference, prediction, labels).items()}


def dice(counts: LabelCounts) -> float | None:
    """Dice from counted voxels; None where the reference has none."""
    return 2 * counts.both / (counts.reference + counts.prediction) if counts.reference else None


def false_positive_voxels(reference: NDArray, prediction: NDArray, labels: Mapping[str, int]) -> dict[str, int]:
    """Predicted voxels of each label that is absent from the reference; the other labels are left out."""
    return {name: counts.prediction for name, counts in count_labels(reference, prediction, labels).items()
            if not counts.reference}


def false_positive_ml(reference: NDArray, prediction: NDArray, labels: Mapping[str, int],
                      spacing_mm: Sequence[float]) -> dict[str, float]:
    """Predicted volume, in ml, of each label that is absent from the reference; the other labels are left out."""
    voxels = false_positive_voxels(reference, prediction, labels)
    return {name: count * voxel_ml(spacing_mm) for name, count in voxels.items()}


def voxel_ml(spacing_mm: Sequence[float]) -> float:
    """Volume of one voxel in ml."""
    k, j, i = spacing_mm
    return k * j * i / 1000
