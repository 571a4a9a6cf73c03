"""What the files of a dataset hold: grids, intensities and label volumes, measured once while they are checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

PERCENTILES = (0.5, 50.0, 99.5)
_LINE_OF = {letter: line for line, letters in enumerate(("LR", "PA", "IS")) for letter in letters}


@dataclass(frozen=True)
class CaseSummary:
    """What one case's files hold.

    Attributes:
        id: the case.
        shape: (k, j, i).
        spacing_mm: (k, j, i); 1 where the file gives none.
        spacing_known: whether the file gives millimetres.
        is_2d: a picture rather than a volume.
        axes: directions in which i, j, k increase.
        channels: of all image files together.
        percentiles: 0.5, 50 and 99.5 % of each channel's finite values; empty when voxels were not read.
        label_voxels: foreground label to number of voxels, where there is a label map.
        label_ml: foreground label to volume in ml; empty where the spacing is unknown.
    """

    id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    spacing_known: bool = True
    is_2d: bool = False
    axes: str = "RAS"
    channels: int = 1
    percentiles: tuple[tuple[float, float, float], ...] = ()
    label_voxels: dict[str, int] = field(default_factory=dict)
    label_ml: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetSummary:
    """The summaries of all checked cases, in the order of their lists; empty when voxels were not read."""

    cases: tuple[CaseSummary, ...]

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(k, j, i) of each case."""
        return [case.shape for case in self.cases]

    @property
    def spacings_mm(self) -> list[tuple[float, float, float]]:
        """(k, j, i) of each case."""
        return [case.spacing_mm for case in self.cases]

    @property
    def median_spacing_mm(self) -> tuple[float, float, float]:
        """The median over the cases, (k, j, i), to a tenth of a micrometre."""
        median = np.round(np.median(np.array(self.spacings_mm), axis=0), 4)
        return float(median[0]), float(median[1]), float(median[2])

    def of(self, ids: Iterable[str]) -> DatasetSummary:
        """The summaries of some cases, in the order given."""
        by_id = {case.id: case for case in self.cases}
        return DatasetSummary(tuple(by_id[identifier] for identifier in ids))

    def towards(self, axes: str) -> DatasetSummary:
        """The same cases, their shapes and spacings in the order of images whose i, j and k run along `axes`.

        Scans of a data set may be stored in different orders; only in a common one can they be compared.
        """
        return DatasetSummary(tuple(
            replace(case, axes=axes, shape=_in_order(case.shape, case.axes, axes),
                    spacing_mm=_in_order(case.spacing_mm, case.axes, axes)) for case in self.cases))

    @property
    def channels(self) -> int:
        """Number of channels, the same in all cases."""
        return self.cases[0].channels if self.cases else 0

    @property
    def is_2d(self) -> bool:
        """Whether every case is a picture."""
        return bool(self.cases) and all(case.is_2d for case in self.cases)

    def to_json(self) -> dict[str, Any]:
        """Ranges over the cases, as they stand in a model's training data summary; nothing names a case.

        ``percentiles``: for each channel the range of the cases' 0.5, 50 and 99.5 % values.
        ``label_ml`` (``label_voxels`` for unknown spacings): name to the range over the cases that have the label.
        """
        if not self.cases:
            return {"cases": 0}
        known = all(case.spacing_known for case in self.cases)
        tables = [case.percentiles for case in self.cases if case.percentiles]
        percentiles = [{f"{percent:g}": _range([table[channel][column] for table in tables])
                        for column, percent in enumerate(PERCENTILES)}
                       for channel in range(self.channels)] if tables else []
        volumes = [case.label_ml if known else case.label_voxels for case in self.cases]
        names = list(dict.fromkeys(name for case in volumes for name in case))
        present = {name: [case[name] for case in volumes if case.get(name)] for name in names}
        label_ranges = {name: _range(found) for name, found in present.items() if found}
        return {"cases": len(self.cases), "channels": self.channels, "is_2d": self.is_2d,
                "shape": _ranges(self.shapes), "spacing_mm": _ranges(self.spacings_mm) if known else None,
                "axes": sorted({case.axes for case in self.cases}), "percentiles": percentiles,
                "label_ml" if known else "label_voxels": label_ranges}


def _in_order(values: tuple[Any, Any, Any], stored: str, wanted: str) -> tuple[Any, Any, Any]:
    """Values (k, j, i) of an image with the axes `stored` (i, j, k), for the axes `wanted`."""
    along = {_LINE_OF[letter]: value for letter, value in zip(reversed(stored), values, strict=True)}
    k, j, i = (along[_LINE_OF[letter]] for letter in reversed(wanted))
    return k, j, i


def _range(values: list[Any]) -> list[float]:
    return [float(min(values)), float(max(values))]


def _ranges(rows: list[Any]) -> list[list[float]]:
    """Of rows (cases, 3), the smallest and the largest of each column."""
    table = np.asarray(rows, dtype=float)
    return [table.min(axis=0).tolist(), table.max(axis=0).tolist()]
