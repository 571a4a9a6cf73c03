"""The voxels of a NIfTI file.

ITK's reader (SimpleITK, Slicer) returns whatever memory holds where a file ends too early, without an error: a
truncated download would pass as an image. Reading the voxels here notices it, and reads one frame without the others.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from medmae.errors import BadInput
from medmae.volumes.frames import choose_frame
from medmae.volumes.nifti_header import NiftiHeader

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128: 3, 2304: 4}
_SKIP_BYTES = 1 << 24


def read_nifti_voxels(path: Path, header: NiftiHeader, frame: int | None) -> NDArray:
    """Read the voxels as (C, k, j, i), with the header's slope and intercept applied.

    The type is the stored one; after rescaling float32, or integers where the results are whole numbers.

    Args:
        path: .nii or .nii.gz file.
        header: its header.
        frame: the wanted volume of a 4-D file.

    Raises:
        BadInput: the file ends too early, has a type of voxel that cannot be used, or `frame` is missing or wrong.
    """
    i, j, k, frames, components = (int(max(1, size)) for size in _sizes(header))
    colours = _COLOURS.get(header.datatype, 1)
    kind = "u1" if colours > 1 else _TYPES.get(header.datatype)
    if kind is None or (frames > 1 and components > 1):
        raise BadInput(f"{path} holds complex numbers, bits or more than four dimensions, which cannot be used. Save "
                       "the wanted volume as whole or real numbers in a file of its own.")
    chosen = choose_frame(path, frames, frame if components == 1 else None)
    dtype = np.dtype(header.byte_order + kind)
    volume_bytes = i * j * k * colours * dtype.itemsize
    data = _read(path, header.voxel_offset + chosen * volume_bytes, volume_bytes * components,
                 to_end=chosen == frames - 1)
    array = np.frombuffer(data, dtype)
    array = (np.moveaxis(array.reshape(k, j, i, colours), -1, 0) if colours > 1 else array.reshape(components, k, j, i))
    array = np.ascontiguousarray(array, dtype.newbyteorder("="))
    return _rescaled(array, header)


def _sizes(header: NiftiHeader) -> tuple[int, ...]:
    used = header.dim[1:1 + header.dim[0]]
    if any(size > 1 for size in used[5:]):
        return (*used[:3], 2, 2)  # more dimensions than any volume has; refused by the caller
    return (*used[:5], *(1,) * (5 - len(used[:5])))


def _read(path: Path, start: int, count: int, *, to_end: bool) -> bytes:
    data = b""
    try:
        with open(path, "rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else open(path, "rb") as stream:
            if compressed:
                _skip(stream, start)
            else:
                stream.seek(start)
            data = stream.read(count)
            if compressed and to_end:
                stream.read(1)  # makes gzip compare its checksum
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path} is damaged or incomplete ({error}). Copy or export it again.") from None
    if len(data) < count:
        raise BadInput(f"{path} is incomplete: it should hold {count} bytes of voxels and has {len(data)}. "
                       "Copy or export it again.")
    return data


def _skip(stream: gzip.GzipFile | IO[bytes], count: int) -> None:
    while count > 0:
        passed = len(stream.read(min(count, _SKIP_BYTES)))
        if not passed:
            return
        count -= passed


def _rescaled(array: NDArray, header: NiftiHeader) -> NDArray:
    slope, intercept = header.slope, header.intercept
    if not np.isfinite([slope, intercept]).all() or slope == 0 or (slope == 1 and intercept == 0):
        return array
    kind = _integer_type(array, slope, intercept) or (np.float64 if array.dtype == np.float64 else np.float32)
    # In double precision, as ITK does it, slice by slice to spare memory.
    result = np.empty(array.shape, kind)
    for source, target in zip(array.reshape(-1, *array.shape[2:]), result.reshape(-1, *array.shape[2:]), strict=True):
        target[...] = source * np.float64(slope) + np.float64(intercept)
    return result


def _integer_type(array: NDArray, slope: float, intercept: float) -> type[np.integer] | None:
    """The smaller integer type that holds all rescaled values, where they are whole numbers; None otherwise.

    A slope of 1 with an intercept of -1024 is common in CT: 16 bits keep it in half the memory of float32.
    """
    if array.dtype.itemsize > 2 or array.dtype.kind not in "iu" or not (slope.is_integer() and intercept.is_integer()):
        return None
    ends = [int(value) * int(slope) + int(intercept) for value in (array.min(), array.max())]
    return next((kind for kind in (np.int16, np.int32)
                 if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max), None)
