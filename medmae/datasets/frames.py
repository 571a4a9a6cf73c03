"""Values as frames of bytes between processes: JSON, with the numbers of arrays behind it. Data only, never code."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

LENGTH = struct.Struct("<Q")
ARRAY = "\x00array"  # the key of an object that stands for an array: [type, shape, offset]
BYTES = "\x00bytes"  # the same for bytes: [length, offset]
NUMBERS = "biuf"  # kinds of NumPy types that may travel


def encode(value: Any) -> bytes:
    """None, booleans, numbers, text, bytes, arrays of numbers, and lists, mappings and dataclasses of them.

    Tuples arrive as lists and dataclasses as mappings of their fields.

    Raises:
        TypeError: something else is among them.
    """
    parts: list[bytes] = []
    head = json.dumps(_plain(value, parts)).encode("ascii")  # lone surrogates of odd file names are escaped
    return b"".join([LENGTH.pack(len(head)), head, *parts])


def decode(data: bytes) -> Any:
    """The opposite of `encode`; arrays are read-only views of `data`."""
    start = LENGTH.size
    end = start + LENGTH.unpack_from(data)[0]
    body = memoryview(data)[end:]

    def restore(found: dict[str, Any]) -> Any:
        if ARRAY in found:
            kind, shape, offset = found[ARRAY]
            count = int(np.prod(shape, dtype=np.int64))
            return np.frombuffer(body, np.dtype(kind), count, offset).reshape(shape)
        if BYTES in found:
            length, offset = found[BYTES]
            return bytes(body[offset:offset + length])
        return found

    return json.loads(data[start:end], object_hook=restore)


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Write what `encode` made, and flush."""
    stream.write(LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The bytes of the next frame, or None where the stream ends."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    size = LENGTH.unpack(head)[0]
    payload = stream.read(size)
    return payload if len(payload) == size else None


def _plain(value: Any, parts: list[bytes]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in NUMBERS:
        return {ARRAY: [value.dtype.str, list(value.shape), _append(parts, np.ascontiguousarray(value).tobytes())]}
    if isinstance(value, bytes):
        return {BYTES: [len(value), _append(parts, value)]}
    if isinstance(value, (list, tuple)):
        return [_plain(item, parts) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), parts) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, parts) for key, item in value.items()}
    raise TypeError(f"a value of the type {type(value).__name__} cannot be sent to another process")


def _append(parts: list[bytes], data: bytes) -> int:
    offset = sum(map(len, parts))
    parts.append(data)
    return offset
