"""Writing NIfTI-1 files (.nii.gz) straight from an array, also from one that is mapped from a file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.volumes.compression import write_gzip
from medmae.volumes.geometry import Geometry

_TYPES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "uint16": 512}
_HEADER_BYTES, _VOXELS_AT = 348, 352
_SCANNER = 1  # code of the coordinates, as ITK writes it; with others ITK reads the rotation and not the rows
_MILLIMETRES = 2
_LONGEST_SIDE = 32767  # sizes are signed 16-bit numbers


def write_nifti(path: Path, array: NDArray, geometry: Geometry) -> None:
    """Write voxels (k, j, i) compressed; not atomic by itself.

    Raises:
        ValueError: the type of the voxels, or a side of more than 32767 voxels, does not exist in NIfTI-1.
        OSError: the disk is full or the file cannot be written.
    """
    if array.dtype.name not in _TYPES or max(array.shape) > _LONGEST_SIDE:
        raise ValueError(f"NIfTI-1 cannot hold {array.dtype} voxels {array.shape}.")
    with open(path, "wb") as file:
        write_gzip(file, array, before=_header(array, geometry))


def _header(array: NDArray, geometry: Geometry) -> bytes:
    """The header with the affine both as rows and as a rotation, which programs prefer differently."""
    header = bytearray(_VOXELS_AT)
    k, j, i = array.shape
    rotation = geometry.direction
    flip = -1.0 if np.linalg.det(rotation) < 0 else 1.0
    b, c, d = _quaternion(rotation * (1.0, 1.0, flip))
    struct.pack_into("<i", header, 0, _HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, i, j, k, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _TYPES[array.dtype.name], 8 * array.dtype.itemsize)
    struct.pack_into("<8f", header, 76, flip, *geometry.spacing_mm[::-1], 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, _VOXELS_AT, 1, 0)
    struct.pack_into("<B", header, 123, _MILLIMETRES)
    struct.pack_into("<2h", header, 252, _SCANNER, _SCANNER)
    struct.pack_into("<6f", header, 256, b, c, d, *geometry.origin_mm)
    struct.pack_into("<12f", header, 280, *geometry.affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float]:
    """The last three parts of the unit quaternion, the first not negative, of a rotation matrix (3, 3)."""
    from_matrix = np.array([[rotation[0, 0] - rotation[1, 1] - rotation[2, 2], 0, 0, 0],
                            [rotation[0, 1] + rotation[1, 0], rotation[1, 1] - rotation[0, 0] - rotation[2, 2], 0, 0],
                            [rotation[0, 2] + rotation[2, 0], rotation[1, 2] + rotation[2, 1],
                             rotation[2, 2] - rotation[0, 0] - rotation[1, 1], 0],
                            [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0],
                             rotation[1, 0] - rotation[0, 1], np.trace(rotation)]]) / 3
    # The eigenvector of the greatest eigenvalue: exact for rotations, the nearest one for those stored with few digits
    # (Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, 2000).
    b, c, d, a = np.linalg.eigh(from_matrix)[1][:, -1]
    sign = -1.0 if a < 0 else 1.0
    return float(sign * b), float(sign * c), float(sign * d)
