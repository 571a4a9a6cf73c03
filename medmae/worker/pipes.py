"""The worker's pipes: lines of JSON in and out, which nothing else in the process can read or write."""

from __future__ import annotations

import io
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from medmae.worker.protocol import LONGEST_LINE, BadRequest


def take_pipes() -> tuple[io.BufferedReader, io.FileIO]:
    """Standard input and output for the protocol alone; everything printed from now on goes to standard error.

    Also what C code prints: file descriptor 1 itself becomes standard error, and 0 an empty file. The duplicates are
    not inherited by child processes, so that no pipe stays open when this process ends.
    """
    try:
        os.fstat(2)
    except OSError:  # started without standard error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    requests, replies = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    if sys.platform == "win32":
        import msvcrt

        for pipe in (requests, replies):
            msvcrt.setmode(pipe, os.O_BINARY)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), encoding="utf-8",
                                               errors="backslashreplace", write_through=True)
    return io.BufferedReader(io.FileIO(requests)), io.FileIO(replies, "w")


def requests_of(pipe: io.BufferedReader) -> Iterator[dict[str, Any] | BadRequest]:
    """The JSON object of each line until the pipe ends; for a line that is none, what is wrong with it.

    No more than `LONGEST_LINE` bytes are ever held.
    """
    while line := pipe.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := pipe.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield BadRequest(f"A line is longer than {LONGEST_LINE} bytes. Hand voxels over in buffers.")
        elif line.strip():
            yield _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | BadRequest:
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return BadRequest(f"A line is not JSON ({error}). Send one JSON object a line, in UTF-8.")
    if not isinstance(message, dict):
        return BadRequest("A line is not a JSON object. Send {\"id\": ..., \"op\": ...}.")
    return message


class Replies:
    """Writes messages, one a line, from a thread of its own.

    Computing never waits for a client that does not read. When the pipe is broken, `on_broken` is called once and all
    further messages are dropped.
    """

    def __init__(self, pipe: io.FileIO, on_broken: Callable[[], None]) -> None:
        self._pipe = pipe
        self._on_broken = on_broken
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="replies", daemon=True)
        self._thread.start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message; returns at once."""
        self._lines.put(json.dumps(message, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n")

    def close(self, seconds: float) -> None:
        """Wait until all is written, `seconds` at most."""
        self._lines.put(None)
        self._thread.join(seconds)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[self._pipe.write(rest):]
            except OSError:
                self._on_broken()
                return
