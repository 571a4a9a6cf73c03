"""PNG files of nothing but pixels, and telling them from everything else before anything is unpacked."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from medmae.models.png import is_plain_png, png

PICTURE = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
GOOD = png(PICTURE)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def made(width: int, height: int, pixels: bytes, *more: bytes, kind: tuple[int, ...] = (8, 2, 0, 0, 0)) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, *kind)) + b"".join(more) + chunk(
        b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_pixels_come_back_as_they_were() -> None:
    assert np.array_equal(np.round(imread(io.BytesIO(GOOD), format="png") * 255), PICTURE)
    assert is_plain_png(GOOD, 35) and not is_plain_png(GOOD, 34)
    assert made(7, 5, b"".join(b"\0" + row.tobytes() for row in PICTURE))[:33] == GOOD[:33]


@pytest.mark.parametrize("data", [
    b"", b"\x89PNG\r\n\x1a\n", GOOD[:-1], GOOD + b"\0", GOOD[8:], b"GIF89a" + GOOD,
    made(7, 5, bytes(109)), made(7, 5, bytes(111)), made(7, 5, bytes(10_000_000)), made(0, 5, b""),
    made(7, 5, bytes(110), chunk(b"tEXt", b"Name\0Doe")), made(1 << 31, 1 << 31, b"\0"),
    made(7, 5, bytes(40), kind=(8, 0, 0, 0, 0)), GOOD[:40] + bytes([GOOD[40] ^ 1]) + GOOD[41:]])
def test_anything_else_is_no_picture(data: bytes) -> None:
    assert not is_plain_png(data, 600 * 220)


@given(st.binary(max_size=80), st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_no_bytes_are_too_odd(data: bytes, begin: int, end: int) -> None:
    damaged = GOOD[:begin] + data + GOOD[end:]
    assert is_plain_png(damaged, 1000) == (damaged == GOOD)
