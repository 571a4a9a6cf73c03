"""The engine as a child process: started with the same version of MedMAE, ended with all its descendants."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from MedMAESegmentLib.Interpreter import chosenInterpreter

CONSOLE_FILE = "console.txt"
_CREATE_NO_WINDOW, _DETACHED_PROCESS = 0x08000000, 0x00000008  # of subprocess, on Windows only


class ChildProcess:
    """``python -m medmae.run RUN_FOLDER`` in a process group of its own.

    The Python is the one that the user has chosen. Slicer's own is PythonSlicer, a launcher that starts the real
    interpreter: killing the launcher alone would leave the computation running, therefore the whole group is killed. An
    attached child ends itself when its standard input closes, which happens also when Slicer crashes; a detached child
    outlives Slicer.
    Output goes to a file in the run folder: a pipe that nobody reads would block the child sooner or later.

    >>> child = ChildProcess(runFolder)
    >>> child.start()
    >>> child.isRunning()
    True
    """

    def __init__(self, runFolder: Path, *, detached: bool = False, command: Sequence[str] | None = None,
                 workingFolder: Path | None = None) -> None:
        """`command` replaces ``python -m medmae.run`` (the run folder and options are appended to it); paths of the run
        are relative to `workingFolder`, default: the run folder."""
        self.runFolder = Path(runFolder)
        self.detached = detached
        self._workingFolder = workingFolder or self.runFolder
        self._python = chosenInterpreter()
        self._command = list(command) if command else [self._python.executable, "-m", "medmae.run"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child; returns at once."""
        command = [*self._command, str(self.runFolder)] + ([] if self.detached else ["--exit-with-parent"])
        options: dict = {"start_new_session": True}
        if os.name == "nt":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined]
            flags |= _DETACHED_PROCESS if self.detached else _CREATE_NO_WINDOW
            options = {"creationflags": flags}
        with open(self.runFolder / CONSOLE_FILE, "ab") as console:
            self._process = subprocess.Popen(
                command, cwd=self._workingFolder, stdout=console, stderr=subprocess.STDOUT,
                # A Python file that lies in the working folder must never be taken for a package.
                env={**self._python.environment(), "PYTHONSAFEPATH": "1"},
                stdin=subprocess.DEVNULL if self.detached else subprocess.PIPE, **options)

    def isRunning(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exitCode(self) -> int | None:
        """The exit code, negative for a signal; None while running."""
        return None if self._process is None else self._process.poll()

    def killTree(self) -> None:
        """End the child and every process that it started, at once."""
        if self._process is None:
            return
        killTree(self._process.pid)
        self._process.wait()
        self._closeInput()

    def waitForExit(self, seconds: float) -> bool:
        """Wait up to `seconds` for the child to end by itself; whether it has."""
        if self._process is None:
            return True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._closeInput()
        return True

    def lastOutput(self, lines: int = 15) -> str:
        """The end of what the child printed; for a child that ended before it could write a state."""
        file = self.runFolder / CONSOLE_FILE
        if not file.exists():
            return ""
        return "\n".join(file.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def _closeInput(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def killTree(process: int) -> None:
    """Kill a process group (POSIX, by the pid of its leader) or a process with its descendants (Windows)."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process)], capture_output=True, check=False)
        return
    # The group can outlive its leader, therefore it is killed even when the leader has ended; or be gone altogether.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
