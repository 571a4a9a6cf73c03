"""Labels that stay outside of the region that is segmented anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medmae.datasets.preprocessing import check_same_grid
from medmae.errors import BadInput
from medmae.inference.cases import FoundCase
from medmae.volumes import LABEL_FORMATS, Geometry, Segment, read_label, read_segments

ENDINGS = (*LABEL_FORMATS, "nii", "mha")


@dataclass(frozen=True, eq=False)
class Base:
    """The labels (k, j, i) of a case, None where there are none, and the segments that their file names."""

    labels: np.ndarray | None = None
    segments: Sequence[Segment] = field(default_factory=tuple)

    def added_to(self, segments: Sequence[Segment]) -> list[Segment]:
        """`segments`, and those of the file with other values."""
        known = {segment.value for segment in segments}
        return [*segments, *(segment for segment in self.segments if segment.value not in known)]


class BaseLabels:
    """Where the labels of each case are.

    Args:
        path: a file, for a single case; or a folder with a file for each case, called as its output; None: no labels.
        cases: how many there are.
        roi: the region that is segmented anew.

    Raises:
        BadInput: there is nothing at `path`, it does not suit the number of cases, or no region is given.
    """

    def __init__(self, path: str | Path | None, cases: int, roi: Any) -> None:
        self.path = None if path is None else Path(path)
        if self.path is None:
            return
        if roi is None:
            raise BadInput("Labels to keep (--base) make sense outside of a region only. Choose the region with --roi.")
        if not self.path.exists():
            raise BadInput(f"The labels to keep, {self.path}, do not exist. Check the path given with --base.")
        if self.path.is_file() and cases > 1:
            raise BadInput(f"{self.path} is one label map, but there are {cases} images. Give --base the folder that "
                           "holds a label map for each of them, as medmae segment writes it.")

    def of(self, case: FoundCase, geometry: Geometry) -> Base:
        """The labels of a case.

        Raises:
            BadInput: there are none, or they lie on another grid than the image.
        """
        if self.path is None:
            return Base()
        file = self.path if self.path.is_file() else self._file_of(case)
        volume = read_label(file)
        check_same_grid(volume.geometry, geometry, str(file))
        if volume.array.size and int(volume.array.min()) < 0:
            raise BadInput(f"The labels to keep, {file}, hold negative values. Give them positive ones.")
        segments = read_segments(file) if file.name.lower().endswith(".seg.nrrd") else ()
        return Base(volume.array[0], segments)

    def _file_of(self, case: FoundCase) -> Path:
        assert self.path is not None
        files = [self.path / f"{case.output_name}.{ending}" for ending in ENDINGS]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise BadInput(f"{self.path} holds no labels for {case.images[0]}: none of "
                           f"{', '.join(file.name for file in files)} is there. Check --base.")
        return found
