"""The worker's process as its client sees it: lines out, lines in, never blocking. Standard library alone."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import medmae

LOG_FILE = "worker.log"
_CREATE_NO_WINDOW = 0x08000000  # of subprocess, on Windows only


class Child:
    """A worker that runs from now on, in a process group of its own.

    Args:
        command: starts it.
        environment: of the process.
        folder: its working folder, where its log goes: a pipe for it that nobody reads would block sooner or later.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        options: dict = {"start_new_session": True}
        if os.name == "nt":
            options = {"creationflags": _CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
        self._log = folder / LOG_FILE
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            env=dict(environment), cwd=folder, **options)
        self._received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._to_send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for work, pipe, lines in ((_receive, self.process.stdout, self._received),
                                  (_send, self.process.stdin, self._to_send)):
            threading.Thread(target=work, args=(pipe, lines), name="worker pipe", daemon=True).start()

    def __del__(self) -> None:
        if hasattr(self, "_to_send"):
            self._to_send.put(None)

    def send(self, line: bytes) -> None:
        """Send a line; returns at once."""
        self._to_send.put(line)

    def received(self) -> bytes | None:
        """The next line, None when it has closed its output.

        Raises:
            queue.Empty: there is none yet.
        """
        return self._received.get_nowait()

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process.poll() is None

    def end(self, within_seconds: float) -> int:
        """Ask it to quit, and kill it when it lives on; the exit code."""
        self.send(b'{"id": 0, "op": "quit"}\n')
        self._to_send.put(None)
        try:
            return self.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End the process now, with the launcher that may lie between; the exit code."""
        if os.name == "nt":
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(self.process.pid)], capture_output=True, check=False)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def last_words(self, lines: int = 10) -> str:
        """The end of its log."""
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def environment_of_worker() -> dict[str, str]:
    """This process's environment, in which the worker finds the same `medmae` first."""
    environment = dict(os.environ)
    engine = str(Path(medmae.__file__).resolve().parents[1])
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path != engine]
    environment.update(PYTHONPATH=os.pathsep.join([engine, *paths]), PYTHONUTF8="1")
    return environment


def _receive(pipe: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    with pipe, contextlib.suppress(OSError):
        for line in pipe:
            lines.put(line)
    lines.put(None)


def _send(pipe: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    with contextlib.suppress(OSError), pipe:  # broken when the worker has died, which `_receive` notices
        while (line := lines.get()) is not None:
            pipe.write(line)
            pipe.flush()
