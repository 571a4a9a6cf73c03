"""Calling a function on a target: the same for this computer and for one over SSH.

A call starts a Python there that reads the sources of ``medmae.jobs.there`` from its standard input, so that nothing
has to be installed, and no path or option of a user is ever part of a command line. The command itself is constant but
for the user's own interpreter and preamble.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import shlex
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import medmae
from medmae.errors import BadInput
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.there.serving import MARKER

TRAVELLING = ("errors.py", "files.py", "run_folder.py", "jobs/there/*.py")
OLDEST_PYTHON = (3, 11)
CALL = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
LOADER = """
import sys
if sys.version_info < OLDEST:
    sys.stderr.write("MEDMAE-PYTHON-TOO-OLD %d.%d" % sys.version_info[:2])
    sys.exit(86)
import importlib.abc, importlib.util, json, zlib
class Sources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, sources): self.sources = sources
    def find_spec(self, name, path=None, target=None):
        if name in self.sources:
            return importlib.util.spec_from_loader(name, self, is_package=self.sources[name][0])
    def exec_module(self, module):
        exec(compile(self.sources[module.__name__][1], module.__name__, "exec"), module.__dict__)
stream = sys.stdin.buffer
sys.meta_path.insert(0, Sources(json.loads(zlib.decompress(stream.read(int(stream.readline()))))))
from medmae.jobs.there.serving import serve
serve()
"""


class OperationFailed(Exception):
    """A fault of ours on the other side; the message is the traceback from there."""


@dataclass(frozen=True)
class Transport:
    """The way to a target.

    Args:
        target: where to.
        begin: starts a shell command there, given as one line of ``sh``; standard streams are pipes.
    """

    target: Target
    begin: Callable[[str], subprocess.Popen[bytes]]

    def call(self, operation: str, arguments: Mapping[str, Any] | None = None, *,
             send: Iterable[bytes] = (), receive: Callable[[bytes], Any] | None = None,
             on_progress: Callable[[dict[str, Any]], Any] | None = None, timeout_s: float = 60.0) -> dict[str, Any]:
        """Call ``medmae.jobs.there.<module>.<function>`` on the target.

        Args:
            operation: "module.function".
            arguments: anything JSON can hold.
            send: bytes for the operation to read.
            receive: takes the bytes that the operation sends.
            on_progress: takes what the operation reports.
            timeout_s: the longest silence from the other side.

        Raises:
            BadInput: as the operation raised it.
            OSError: as the operation raised it (disk full, no permission), with the path there in its message.
            TargetProblem: the target cannot be reached or used.
            ConnectionLost: the connection ended before the answer.
            OperationFailed: a fault of ours there.
        """
        process = self.begin(self._command())
        answer = _Answer(process, receive, on_progress)
        sender = threading.Thread(target=_send, args=(process, _request(operation, arguments or {}), send), daemon=True)
        sender.start()
        try:
            return answer.read(timeout_s)
        except _NoAnswer as none:
            raise self._problem(process, none.reason) from None
        finally:
            _end(process)
            sender.join(timeout=5)

    def _command(self) -> str:
        python = f"exec {shlex.quote(self.target.python)} -I -c {shlex.quote(CALL)}"
        return "\n".join(("umask 077", *self.target.preamble, python))

    def _problem(self, process: subprocess.Popen[bytes], reason: str) -> TargetProblem:
        """Why there was no answer, from the exit code and what was said on stderr."""
        from medmae.jobs.ssh import problem_of_failure

        process.kill() if reason == "silence" else None
        code = process.wait()
        assert process.stderr is not None
        return problem_of_failure(self.target, code, process.stderr.read().decode(errors="replace"), reason)


def connect(target: Target) -> Transport:
    """The transport of a target. Nothing is connected before the first call."""
    if not target.is_remote:
        return Transport(target, begin_here)
    from medmae.jobs.ssh import begin_over_ssh

    return Transport(target, functools.partial(begin_over_ssh, target))


def begin_here(script: str) -> subprocess.Popen[bytes]:
    """Start a line of ``sh`` on this computer."""
    return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True)


@functools.cache
def travelling_sources() -> bytes:
    """The modules that run there: {name: [is a package, source]} as compressed JSON."""
    root = Path(medmae.__file__).parent
    sources = {"medmae": [True, (root / "__init__.py").read_text(encoding="utf-8")], "medmae.jobs": [True, ""]}
    for pattern in TRAVELLING:
        for file in sorted(root.glob(pattern)):
            parts = ["medmae", *file.relative_to(root).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            sources[name] = [is_package, file.read_text(encoding="utf-8")]
    return zlib.compress(json.dumps(sources).encode())


def _request(operation: str, arguments: Mapping[str, Any]) -> bytes:
    loader = LOADER.replace("OLDEST", repr(OLDEST_PYTHON)).encode()
    sources = travelling_sources()
    line = json.dumps({"operation": operation, "arguments": arguments}).encode()
    return b"%d\n%s%d\n%s%s\n" % (len(loader), loader, len(sources), sources, line)


def _send(process: subprocess.Popen[bytes], request: bytes, chunks: Iterable[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # the other side has ended; its answer, or its absence, says why
        process.stdin.write(request)
        for chunk in chunks:
            process.stdin.write(chunk)
        process.stdin.close()


class _NoAnswer(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Answer:
    """The frames of one call, read in a thread so that silence can be noticed."""

    def __init__(self, process: subprocess.Popen[bytes], receive: Callable[[bytes], Any] | None,
                 on_progress: Callable[[dict[str, Any]], Any] | None) -> None:
        assert process.stdout is not None
        self._frames: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(maxsize=8)
        self._receive = receive
        self._on_progress = on_progress
        threading.Thread(target=self._pump, args=(process.stdout,), daemon=True).start()

    def _pump(self, stream: IO[bytes]) -> None:
        seen = b""
        while MARKER not in seen:
            letter = stream.read(1)
            if not letter:
                self._frames.put(None)
                return
            seen = (seen + letter)[-len(MARKER):]
        while len(head := stream.read(9)) == 9:
            size = int.from_bytes(head[1:], "big")
            data = stream.read(size)
            if len(data) < size:
                break
            self._frames.put((head[:1], data))
        self._frames.put(None)

    def read(self, timeout_s: float) -> dict[str, Any]:
        while True:
            try:
                frame = self._frames.get(timeout=timeout_s)
            except queue.Empty:
                raise _NoAnswer("silence") from None
            if frame is None:
                raise _NoAnswer("end")
            kind, data = frame
            if kind == b"D":
                if self._receive:
                    self._receive(data)
            elif kind == b"P":
                if self._on_progress:
                    self._on_progress(json.loads(data))
            elif kind == b"B":
                raise BadInput(data.decode())
            elif kind == b"O":
                told = json.loads(data)
                raise OSError(told["errno"], told["message"])
            elif kind == b"E":
                raise OperationFailed(data.decode())
            else:
                return json.loads(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, whether the call succeeded or not."""
    for stream in (process.stdout, process.stderr):
        if stream is not None and process.poll() is not None:
            stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
