"""What a panel or a script shows of a finished segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SegmentSummary:
    """One segment of a result.

    name - Of the label.
    voxels - How many it has.
    ml - Its volume; None where the image states no spacing.
    confidence - Mean probability from 0 to 1 where it is the most likely; None where it was not found.
    """

    name: str
    voxels: int
    ml: float | None
    confidence: float | None = None


def summariesOf(labels: Mapping[str, Mapping[str, Any]]) -> list[SegmentSummary]:
    """The segments of a result as the engine tells them."""
    return [SegmentSummary(name, size["voxels"], size["ml"], size.get("confidence")) for name, size in labels.items()]
