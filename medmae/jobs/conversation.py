"""One call's bytes: the request and the upload go out, frames come back, and silence is noticed."""

from __future__ import annotations

import errno
import json
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO, Any

from medmae.errors import BadInput
from medmae.jobs.there.serving import MARKER
from medmae.jobs.told import printable, text, whole

LARGEST_FRAME = 1 << 28  # a length beyond it is no frame of ours
ON_WINDOWS = os.name == "nt"
CHUNK = 1 << 16
KEPT_OF_STDERR = 64  # chunks
ENDING_S = 5.0
LETTING_GO_S = 1.0


class OperationFailed(Exception):
    """A fault of ours on the other side; the message is the traceback from there."""


class NoAnswer(Exception):
    """The other side has ended, "before" its answer began or "amid" it, fell silent ("silence"), or said what we never
    say ("odd")."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Conversation:
    """What goes to and comes from the process of a call. Three threads move the bytes, so that neither a greeting that
    nobody reads nor an upload that nobody takes can block the other streams; they end with the process.

    Args:
        process: with pipes for its standard streams.
        request: sent first.
        upload: sent after it, in pieces (see `there.serving.Upload`).
        kill: ends the process.
    """

    def __init__(self, process: subprocess.Popen[bytes], request: bytes, upload: Iterable[bytes],
                 kill: Callable[[], None]) -> None:
        self._process = process
        self._kill = kill
        self._frames: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(maxsize=8)
        self._said: deque[bytes] = deque(maxlen=KEPT_OF_STDERR)
        self._moved = time.monotonic()  # when bytes last went either way
        self._began = False
        self._closed = False
        self._failure: BaseException | None = None
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._sender = self._start(self._send, process.stdin, request, upload)
        self._receiver = self._start(self._take_frames, process.stdout)
        self._listener = self._start(self._listen, process.stderr)

    @staticmethod
    def _start(function: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        return thread

    def answer(self, receive: Callable[[bytes], Any] | None, on_progress: Callable[[dict[str, Any]], Any] | None,
               timeout_s: float) -> dict[str, Any]:
        """The result of the operation; what it raised is raised here.

        Raises:
            NoAnswer: it ended or fell silent.
        """
        while True:
            frame = self._next_frame(timeout_s)
            if frame is None:
                self._sender.join(ENDING_S)
                if self._failure is not None:
                    raise self._failure
                raise NoAnswer("amid" if self._began else "before")
            kind, data = frame
            if kind == b"D" and receive is not None:
                receive(data)
            elif kind == b"P" and on_progress is not None:
                on_progress(_object(data))
            elif kind == b"R":
                return _object(data)
            elif kind == b"B":
                raise BadInput(printable(data.decode(errors="replace")))
            elif kind == b"O":
                told = _object(data)
                raise OSError(whole(told.get("errno")), text(told.get("message")))
            elif kind == b"E":
                raise OperationFailed(printable(data.decode(errors="replace")))

    def finish(self) -> None:
        """After the answer: let the other side end, and raise what the upload raised, if it did."""
        self._exit_code()
        self._sender.join(ENDING_S)
        if self._failure is not None:
            raise self._failure

    def end(self) -> tuple[int, str]:
        """The exit code, and the last of what came on stderr."""
        code = self._exit_code()
        self._listener.join(LETTING_GO_S)
        return code, b"".join(list(self._said)).decode(errors="replace")

    def close(self) -> None:
        """Let go of the threads. Each closes its stream as it ends; with the process gone, all do, unless another
        process (of a shared connection that hangs) still holds the other ends."""
        self._closed = True
        for thread in (self._sender, self._receiver):
            thread.join(LETTING_GO_S)

    def _exit_code(self) -> int:
        """Of the process; one that has nothing more to say and does not end is killed."""
        try:
            return self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.wait()

    def _next_frame(self, timeout_s: float) -> tuple[bytes, bytes] | None:
        began = time.monotonic()
        while (left := max(self._moved, began) + timeout_s - time.monotonic()) > 0:
            try:
                return self._frames.get(timeout=left)
            except queue.Empty:
                continue
        raise NoAnswer("silence")

    def _send(self, stream: IO[bytes], request: bytes, upload: Iterable[bytes]) -> None:
        try:
            stream.write(request)
            for piece in upload:
                if piece:
                    stream.write(b"%d\n" % len(piece))
                    stream.write(piece)
                    self._moved = time.monotonic()
            stream.write(b"0\n")
        except BaseException as error:  # noqa: BLE001 - of the caller's iterable; raised in the caller's thread
            if not _says_ended(error):
                self._failure = error
                self._kill()
        finally:
            _close(stream)

    def _take_frames(self, stream: IO[bytes]) -> None:
        with stream:
            if _skip_greeting(stream):
                self._began = True
                while (head := self._read(stream, 9)) is not None:
                    data = self._read(stream, int.from_bytes(head[1:], "big"))
                    if data is None or not self._put((head[:1], data)):
                        break
        self._put(None)

    def _read(self, stream: IO[bytes], size: int) -> bytes | None:
        """Exactly `size` bytes; None at the end of the stream, or if no frame can be so large."""
        if size > LARGEST_FRAME:
            self._kill()
            return None
        parts = []
        while size:
            part = stream.read1(min(size, 1 << 20))  # type: ignore[attr-defined]
            if not part:
                return None
            self._moved = time.monotonic()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _put(self, frame: tuple[bytes, bytes] | None) -> bool:
        """Hand a frame over; False when nobody takes any more."""
        while not self._closed:
            try:
                self._frames.put(frame, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read1(CHUNK):  # type: ignore[attr-defined]
                self._said.append(chunk)


def _object(data: bytes) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        NoAnswer: it is none.
    """
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise NoAnswer("odd") from None
    if not isinstance(told, dict):
        raise NoAnswer("odd")
    return told


def _says_ended(error: BaseException) -> bool:
    """Whether a write failed because the other side has ended; its answer, or its absence, then says why."""
    return isinstance(error, BrokenPipeError) or (ON_WINDOWS and getattr(error, "errno", None) == errno.EINVAL)


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError as error:
        if not _says_ended(error):
            raise


def _skip_greeting(stream: IO[bytes]) -> bool:
    """Read past what login shells print, to where frames begin; False at the end of the stream."""
    end = b""
    while window := stream.peek(CHUNK):  # type: ignore[attr-defined]
        seen = end + window
        at = seen.find(MARKER)
        if at >= 0:
            stream.read(at + len(MARKER) - len(end))
            return True
        stream.read(len(window))
        end = seen[-(len(MARKER) - 1):]
    return False
