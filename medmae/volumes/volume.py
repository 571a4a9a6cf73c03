"""An image with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmae.volumes.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and their geometry.

    Attributes:
        array: (C, k, j, i), the stored type and values (DICOM: after the rescale slope and intercept).
        geometry: the grid in RAS mm.
        is_2d: a single picture (PNG, JPEG, TIFF, radiograph) rather than a slice of a volume.
        spacing_known: False when the file gives no millimetres; the spacing is then 1.
        source: the path it was read from, for messages.
        modality: DICOM code that the file states, "" when it states none.
    """

    array: np.ndarray
    geometry: Geometry
    is_2d: bool = False
    spacing_known: bool = True
    source: str = ""
    modality: str = ""

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise ValueError(f"Array {self.array.shape} does not fit the grid {self.geometry.shape}; "
                             "it must be (C, k, j, i).")

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.array.shape[0])
