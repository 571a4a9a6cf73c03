"""One call from afar: a request on standard input, frames on standard output."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from typing import Any, BinaryIO

from medmae.errors import BadInput

MARKER = b"\x00MEDMAE-ANSWERS\x01"  # login shells print greetings before it; no end of it begins it
CHUNK = 1 << 20


class Upload:
    """The bytes that come with a call, in pieces with their length before them and an empty one at the end: otherwise
    a connection that broke would look like the end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._left: int | None = 0  # of this piece; None: the end has come

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end; all that is left without a size.

        Raises:
            ConnectionResetError: the stream broke off.
        """
        parts: list[bytes] = []
        missing = float("inf") if size < 0 else size
        while missing and self._left is not None:
            if self._left == 0:
                head = self._source.readline()
                if not head.endswith(b"\n"):
                    raise _broken_off()
                self._left = int(head) or None
                continue
            part = self._source.read(int(min(self._left, missing)))
            if not part:
                raise _broken_off()
            parts.append(part)
            self._left -= len(part)
            missing -= len(part)
        return b"".join(parts)


def _broken_off() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the connection broke while data came in")


class Channel:
    """The stream of bytes that comes with a call, and the way back for bytes and progress."""

    def __init__(self, source: BinaryIO | Upload, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink

    def read(self, size: int = -1) -> bytes:
        """What the caller sends, up to `size` bytes; empty at the end."""
        return self._source.read(size)

    def write(self, data: bytes) -> None:
        """Send bytes to the caller."""
        self.frame(b"D", data)

    def report(self, **progress: Any) -> None:
        """Tell the caller how far the work is; also keeps a long call from being taken for dead."""
        self.frame(b"P", json.dumps(progress).encode())

    def frame(self, kind: bytes, data: bytes) -> None:
        """One frame: a letter, the length in 8 bytes, the data."""
        self._sink.write(kind + len(data).to_bytes(8, "big") + data)
        self._sink.flush()


def serve() -> None:
    """Answer the one request on standard input: a line of JSON {operation, arguments}, then an upload."""
    os.umask(0o077)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what operations print must not get between the frames
    sink.write(MARKER)
    channel = Channel(Upload(sys.stdin.buffer), sink)
    try:
        request = json.loads(sys.stdin.buffer.readline())
        module, _, function = request["operation"].partition(".")
        operation = getattr(importlib.import_module(f"medmae.jobs.there.{module}"), function)
        channel.frame(b"R", json.dumps(operation(request["arguments"], channel)).encode())
    except BadInput as error:
        channel.frame(b"B", str(error).encode("utf-8", "backslashreplace"))
    except OSError as error:
        told = {"errno": error.errno, "message": f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")}
        channel.frame(b"O", json.dumps(told).encode())
    except Exception:  # noqa: BLE001 - the last line of defence: told whole to the other side
        channel.frame(b"E", traceback.format_exc().encode("utf-8", "backslashreplace"))
