"""Which modality an image is of, where several are mixed."""

from __future__ import annotations

import numpy as np

from medmae.volumes import Volume

# What DICOM writers put where they know nothing better; such a code says less than the image itself.
_SAYS_NOTHING = {"", "OT", "SC", "SR", "OTHER"}
COLOUR = "OT"
_GREY_TOLERANCE = 0.02  # of the range: JPEG gives grey pictures slightly different channels
_HOUNSFIELD_OF_AIR = -500


def modality_of(volume: Volume, *, stated: str = "", declared: str = "") -> str:
    """The DICOM code of an image's modality.

    Args:
        volume: the image.
        stated: what a person says of this image or of all; it counts first.
        declared: what a dataset file says of all its images; it counts where the image says nothing itself (DICOM).

    Where nobody says anything: pictures are radiographs (DX), colour ones OT; volumes with values as in Hounsfield
    units far below water are CT, others MR.
    """
    for code in (stated, volume.modality, declared):
        if code.upper() not in _SAYS_NOTHING:
            return code.upper()
    if volume.is_2d:
        return COLOUR if _is_coloured(volume.array) else "DX"
    lowest = volume.array.min(where=np.isfinite(volume.array), initial=0)
    return "CT" if lowest < _HOUNSFIELD_OF_AIR else "MR"


def _is_coloured(array: np.ndarray) -> bool:
    if array.shape[0] < 3:
        return False
    colours = array[:3].astype(np.float32)
    span = float(colours.max() - colours.min())
    return span > 0 and float((colours.max(axis=0) - colours.min(axis=0)).mean()) > _GREY_TOLERANCE * span
