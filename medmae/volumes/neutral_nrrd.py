"""Images as voxels and geometry alone: NRRD files that read exactly as the images they were made from.

What NRRD has no words for stands in three fields of the header, which `read_image` honours: that the image is a
picture, that its spacing is not known, and its modality.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from medmae.volumes.nrrd_header import NRRD_TYPES, nrrd_vector
from medmae.volumes.volume import Volume

PICTURE, NO_SPACING, MODALITY = "MedMAE_picture", "MedMAE_spacing_unknown", "MedMAE_modality"
_LEVEL = 1  # of compression: hardly larger files, several times faster
_LONGEST_CODE = 16


class UnlikeFrames(ValueError):
    """Frames that do not fit into one file: of several channels, or of different types."""


def write_neutral(frames: Iterable[Volume], count: int, write: Callable[[bytes], Any]) -> None:
    """Write an image, or the frames of one, as a .nrrd file; equal images give equal bytes.

    Args:
        frames: of one grid and type, each of a single channel where there are several; read one after the other.
        count: how many there are.
        write: takes the bytes of the file.

    Raises:
        UnlikeFrames: they do not fit into one file.
    """
    compressor = zlib.compressobj(_LEVEL, wbits=31)  # 31: with a gzip header
    first: Volume | None = None
    for volume in frames:
        if first is None:
            first = volume
            write(_header(volume, count))
        if volume.array.dtype != first.array.dtype or volume.array.shape != first.array.shape:
            raise UnlikeFrames
        for plane in range(volume.array.shape[1]):
            voxels = np.moveaxis(volume.array[:, plane], 0, -1)
            data = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("<"))
            write(compressor.compress(data.reshape(-1).view(np.uint8).data))
    write(compressor.flush())


def stated_facts(reader: Any) -> dict[str, Any]:
    """What our fields say, as arguments of `Volume`, from a SimpleITK reader that has read the header."""
    keys = set(reader.GetMetaDataKeys())
    facts: dict[str, Any] = {}
    if PICTURE in keys:
        facts["is_2d"] = True
    if NO_SPACING in keys:
        facts["spacing_known"] = False
    if MODALITY in keys:
        facts["modality"] = str(reader.GetMetaData(MODALITY)).strip()[:_LONGEST_CODE]
    return facts


def _header(volume: Volume, count: int) -> bytes:
    if count > 1 and volume.channels > 1:
        raise UnlikeFrames
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine + 0.0  # + 0.0 turns -0 into 0
    columns, origin = [lps[:3, axis] for axis in range(3)], lps[:3, 3]
    sizes: list[int] = list(volume.geometry.shape[::-1])
    directions, kinds, space = [nrrd_vector(column) for column in columns], ["domain"] * 3, "left-posterior-superior"
    if volume.channels > 1:
        sizes, directions, kinds = [volume.channels, *sizes], ["none", *directions], ["vector", *kinds]
    elif count > 1:
        sizes, kinds, space = [*sizes, count], [*kinds, "domain"], f"{space}-time"
        directions = [nrrd_vector(np.append(column, 0.0)) for column in columns] + ["(0,0,0,1)"]
        origin = np.append(origin, 0.0)
    lines = ["NRRD0004", f"type: {NRRD_TYPES[volume.array.dtype.name]}", f"dimension: {len(sizes)}", f"space: {space}",
             f"sizes: {' '.join(map(str, sizes))}", f"space directions: {' '.join(directions)}",
             f"kinds: {' '.join(kinds)}", *([] if volume.array.dtype.itemsize == 1 else ["endian: little"]),
             "encoding: gzip", f"space origin: {nrrd_vector(origin)}",
             *([f"{PICTURE}:=1"] if volume.is_2d else []), *([] if volume.spacing_known else [f"{NO_SPACING}:=1"]),
             *([f"{MODALITY}:={volume.modality}"] if _is_code(volume.modality) else [])]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def _is_code(text: str) -> bool:
    """Whether it can be a DICOM code, and nothing else that a header may hold there."""
    return text.isascii() and text.isalnum() and len(text) <= _LONGEST_CODE
