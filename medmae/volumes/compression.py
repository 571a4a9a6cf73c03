"""Compressing voxels into a file that is open, a part at a time."""

from __future__ import annotations

import zlib
from typing import IO

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 1 << 24


def write_gzip(file: IO[bytes], array: NDArray, before: bytes = b"") -> None:
    """Append `before` and the voxels, little endian, as one gzip stream; large images are compressed quickly.

    Raises:
        OSError: the disk is full or the file cannot be written.
    """
    compressor = zlib.compressobj(level=1 if array.size > _CHUNK_BYTES else 6, wbits=31)  # 31: with a gzip header
    file.write(compressor.compress(before))
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    for start in range(0, len(data), _CHUNK_BYTES):
        file.write(compressor.compress(data[start:start + _CHUNK_BYTES].data))
    file.write(compressor.flush())
