"""Pictures as PNG files that hold nothing but pixels: red, green and blue in 8 bits. Needs numpy only."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">2I5B")
_KIND = (8, 2, 0, 0, 0)  # bits, colour type (RGB), compression, filter, interlace
_EFFORT = 6  # of zlib: at 9 it takes several times as long for a few per cent


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture (rows, columns, 3) as a PNG without any other information."""
    height, width, _ = picture.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], 1)  # no filter
    return SIGNATURE + b"".join(_chunk(name, data) for name, data in (
        (b"IHDR", _HEAD.pack(width, height, *_KIND)), (b"IDAT", zlib.compress(lines.tobytes(), _EFFORT)),
        (b"IEND", b"")))


def is_plain_png(data: bytes, most_pixels: int) -> bool:
    """Whether `data` is a whole PNG as `png` writes it, of at most `most_pixels`; nothing larger is ever unpacked."""
    if data[:len(SIGNATURE)] != SIGNATURE or data[12:16] != b"IHDR" or len(data) < 57:
        return False
    width, height, *kind = _HEAD.unpack(data[16:29])
    size = int.from_bytes(data[33:37], "big")
    if tuple(kind) != _KIND or not 0 < width * height <= most_pixels or len(data) != 57 + size:
        return False
    packed = data[41:41 + size]
    chunks = (_chunk(b"IHDR", data[16:29]), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    length = height * (3 * width + 1)
    unpacking = zlib.decompressobj()
    try:
        lines = unpacking.decompress(packed, length + 1)
    except zlib.error:
        return False
    return data == SIGNATURE + b"".join(chunks) and unpacking.eof and len(lines) == length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
