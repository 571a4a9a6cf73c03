"""Names, colours and terms of the labels in a label map."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmae.volumes.terminology import color_of, terminology_of

# Distinct and readable over grey images, also with the common colour vision deficiencies (Okabe and Ito 2008, without
# black).
_FIRST_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
                 (204, 121, 167))
_GOLDEN_ANGLE = 0.61803398875


@dataclass(frozen=True)
class Segment:
    """One label.

    Attributes:
        name: shown to people.
        value: its number in the label map, at least 1.
        color: red, green, blue in 0..1.
        terminology: SNOMED terms (see `medmae.volumes.terminology`), or None.
    """

    name: str
    value: int
    color: tuple[float, float, float]
    terminology: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.value < 1:
            raise ValueError(f"segment {self.name!r} has the value {self.value}; 0 is the background, so use 1 or more")
        if len(self.color) != 3 or not all(0 <= part <= 1 for part in self.color):
            raise ValueError(f"segment {self.name!r} has the colour {self.color}; use three numbers in 0..1")


def default_color(index: int) -> tuple[float, float, float]:
    """A colour for the label number `index` (1, 2, ...): a fixed palette first, then hues far from their neighbours."""
    position = max(0, index - 1)
    if position < len(_FIRST_COLORS):
        red, green, blue = _FIRST_COLORS[position]
        return red / 255, green / 255, blue / 255
    hue = (position * _GOLDEN_ANGLE) % 1
    red_, green_, blue_ = colorsys.hsv_to_rgb(hue, (0.85, 0.55, 0.7)[position % 3], (0.95, 0.9, 0.75)[position % 3])
    return round(red_, 4), round(green_, 4), round(blue_, 4)


def default_segments(labels: Mapping[str, int]) -> list[Segment]:
    """Segments of a name to value map, by value; the value 0 (background) is left out.

    Common structures get their usual colour and SNOMED terms; others get one of a palette.
    """
    segments: list[Segment] = []
    for number, (name, value) in enumerate(
            sorted(((name, value) for name, value in labels.items() if value != 0), key=lambda item: item[1]), start=1):
        usual = color_of(name)
        taken = {segment.color for segment in segments}
        color = usual if usual is not None and usual not in taken else default_color(number)
        segments.append(Segment(name, value, color, terminology_of(name)))
    return segments


def complete_segments(labels: NDArray, segments: Sequence[Segment]) -> list[Segment]:
    """`segments`, and "Label <value>" for each value but 0 in `labels` (k, j, i) that none of them names."""
    named = {segment.value for segment in segments}
    return [*segments, *(Segment(f"Label {value}", value, default_color(value))
                         for value in values_in(labels) if value and value not in named)]


def values_in(labels: NDArray) -> list[int]:
    """The values of a label map (k, j, i), rising, found plane by plane: sorting all voxels would take seconds."""
    if labels.dtype in (np.uint8, np.uint16):
        present = np.zeros(int(np.iinfo(labels.dtype).max) + 1, bool)
        for plane in labels:
            present[:int(plane.max()) + 1] |= np.bincount(plane.ravel()).astype(bool)
        return np.flatnonzero(present).tolist()
    return sorted({int(value) for plane in labels for value in np.unique(plane)})
