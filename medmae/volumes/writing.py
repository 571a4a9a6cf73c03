"""Writing label maps: .nii.gz, .nrrd and Slicer's .seg.nrrd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.files import atomic_path
from medmae.volumes.geometry import Geometry
from medmae.volumes.nifti_writing import write_nifti
from medmae.volumes.nrrd_header import write_nrrd
from medmae.volumes.seg_nrrd import segmentation_fields
from medmae.volumes.segments import Segment, complete_segments

LABEL_FORMATS = ("nii.gz", "nrrd", "seg.nrrd")


def write_label(path: Path | str, labels: NDArray, geometry: Geometry, segments: Sequence[Segment],
                format: str) -> Path:
    """Write a label map; the file appears whole or not at all.

    Nothing is imported for it. A .seg.nrrd opens in Slicer as a segmentation with the names, colours and
    terms of `segments`; values that none of them names become segments called "Label <value>": no voxel is lost.

    Args:
        path: the file, with its extension.
        labels: (k, j, i) integers, not negative.
        geometry: the grid of `labels`.
        segments: what the values mean; used by .seg.nrrd.
        format: "nii.gz", "nrrd" or "seg.nrrd".

    Returns:
        The path.

    Raises:
        BadInput: the format is unknown.
        ValueError: labels are not integers on the grid, or two segments share a value.
    """
    if format not in LABEL_FORMATS:
        raise BadInput(f"Labels cannot be written as '{format}'. Choose one of {', '.join(LABEL_FORMATS)}.")
    if labels.shape != geometry.shape:
        raise ValueError(f"Labels {labels.shape} do not fit the grid {geometry.shape}.")
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values):
        raise ValueError(f"Two segments share a label value: {sorted(values)}.")
    stored = _smallest_type(labels, max(values, default=0))
    with atomic_path(path) as temporary:
        if format == "nii.gz":
            write_nifti(temporary, stored, geometry)
        else:
            fields = (segmentation_fields(stored, geometry, complete_segments(stored, segments))
                      if format == "seg.nrrd" else {})
            write_nrrd(temporary, stored, geometry, fields)
    return Path(path)


def _smallest_type(labels: NDArray, highest: int) -> NDArray:
    """8 bit where it is enough, else 16 bit signed, which every program reads, else 32 bit."""
    if not (np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_):
        raise ValueError(f"Labels must be integers, not {labels.dtype}.")
    low, high = int(labels.min()), max(highest, int(labels.max()))
    if low < 0:
        raise ValueError(f"Labels must not be negative; the lowest is {low}.")
    kind = np.uint8 if high <= 255 else np.int16 if high <= 32767 else np.int32
    return np.ascontiguousarray(labels, kind)
