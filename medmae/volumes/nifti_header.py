"""What a NIfTI header says about geometry, read without a library.

SimpleITK and Slicer share ITK's reader, which silently falls back to another transform (or to plain spacing) when the
sform has a shear or other voxel sizes. Reading the header itself tells such files from sound ones.
"""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.geometry import refuse_unusable_affine

_log = logging.getLogger(__name__)

_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540


@dataclass(frozen=True)
class NiftiHeader:
    """The parts of a NIfTI-1 or -2 header that place and describe the voxels.

    Attributes:
        version: 1 or 2.
        dim: the eight entries of the header: number of dimensions, then sizes i, j, k, t, ...
        pixdim: eight entries; pixdim[1:4] are the voxel sizes in mm.
        qform: (4, 4) RAS affine of the quaternion, None when its code is 0.
        sform: (4, 4) RAS affine of the stored rows, None when its code is 0.
        byte_order: "<" or ">".
        datatype: the standard's code of the voxel type.
        voxel_offset: first byte of the voxels.
        slope: stored values are multiplied by it; 0 means no rescaling.
        intercept: added after that.
    """

    version: int
    dim: tuple[int, ...]
    pixdim: tuple[float, ...]
    qform: NDArray[np.float64] | None
    sform: NDArray[np.float64] | None
    byte_order: str
    datatype: int
    voxel_offset: int
    slope: float
    intercept: float


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a .nii or .nii.gz file.

    Raises:
        BadInput: the file is not NIfTI, or ends inside its header.
    """
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else open(path, "rb") as stream:
            data = stream.read(_NIFTI2_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path} is damaged or incomplete ({error}). Copy or export it again.") from None
    for order in "<>":
        if len(data) >= 4 and struct.unpack_from(f"{order}i", data)[0] == _NIFTI1_BYTES and len(data) >= _NIFTI1_BYTES:
            return _nifti1(data, order)
        if len(data) >= _NIFTI2_BYTES and struct.unpack_from(f"{order}i", data)[0] == _NIFTI2_BYTES:
            return _nifti2(data, order)
    raise BadInput(f"{path} is not a NIfTI file, although its name says so: it has no NIfTI header. "
                   "Check that the file was copied whole and has the right name.")


def check_nifti_geometry(header: NiftiHeader, path: Path) -> None:
    """Refuse headers whose sform ITK would not honour, and note where sform and qform disagree.

    Raises:
        BadInput: the sform or qform is sheared or degenerate, or the sform has other voxel sizes than the header.
    """
    for transform in (header.sform, header.qform):
        if transform is not None:
            refuse_unusable_affine(transform, str(path))
    if header.sform is None:
        return
    stated = np.abs(np.array(header.pixdim[1:4]))
    scales = np.linalg.norm(header.sform[:3, :3], axis=0)
    if not np.allclose(scales, stated, rtol=1e-3, atol=1e-6):
        raise BadInput(f"{path} states two different voxel sizes: {_sizes(stated)} mm in pixdim, but {_sizes(scales)} "
                       "mm in its sform. Programs disagree on which counts, so no result would be safe. "
                       "Correct its header, or convert it again from the original files.")
    if header.qform is not None and not np.allclose(header.sform, header.qform, rtol=1e-3, atol=1e-2):
        _log.warning("%s: sform and qform place the image differently; the one that Slicer uses is taken.", path)


def _sizes(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _nifti1(data: bytes, order: str) -> NiftiHeader:
    def read(format: str, offset: int) -> tuple:
        return struct.unpack_from(order + format, data, offset)

    pixdim, (qcode, scode) = read("8f", 76), read("2h", 252)
    offset, slope, intercept = read("3f", 108)
    return NiftiHeader(1, read("8h", 40), pixdim, _qform(pixdim, read("6f", 256)) if qcode > 0 else None,
                       _sform(read("12f", 280)) if scode > 0 else None, order, read("h", 70)[0], int(offset),
                       slope, intercept)


def _nifti2(data: bytes, order: str) -> NiftiHeader:
    def read(format: str, offset: int) -> tuple:
        return struct.unpack_from(order + format, data, offset)

    pixdim, (qcode, scode) = read("8d", 104), read("2i", 344)
    slope, intercept = read("2d", 176)
    return NiftiHeader(2, read("8q", 16), pixdim, _qform(pixdim, read("6d", 352)) if qcode > 0 else None,
                       _sform(read("12d", 400)) if scode > 0 else None, order, read("h", 12)[0], read("q", 168)[0],
                       slope, intercept)


def _sform(rows: tuple[float, ...]) -> NDArray[np.float64]:
    return np.vstack([np.array(rows, float).reshape(3, 4), [0, 0, 0, 1]])


def _qform(pixdim: tuple[float, ...], quaternion: tuple[float, ...]) -> NDArray[np.float64]:
    """The affine of a quaternion, as the NIfTI-1 standard defines it (method 2)."""
    b, c, d = quaternion[:3]
    a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.abs(pixdim[1:4]) * [1, 1, -1 if pixdim[0] < 0 else 1]
    affine[:3, 3] = quaternion[3:]
    return affine
