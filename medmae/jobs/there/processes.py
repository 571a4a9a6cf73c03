"""The processes of a run: started so that they outlive their starter, found again, told apart from others."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmae.files import read_json, write_json
from medmae.run_folder import process_start

LAUNCHED = "pid"
MARK = "MEDMAE_RUN"  # in the environment of every process of a run, whatever its session, group or parent


def start_detached(command: Sequence[str], folder: Path, output: Path,
                   environment: dict[str, str] | None = None) -> int:
    """Start a process without terminal, in a session of its own; it lives on when everything else here has ended.

    Args:
        command: words.
        folder: its working folder, which also marks its processes.
        output: a file that what it says is appended to.
        environment: its environment; default: ours.

    Returns:
        Its pid.
    """
    options: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":  # of subprocess: DETACHED_PROCESS and CREATE_NEW_PROCESS_GROUP
        options = {"creationflags": 0x00000008 | 0x00000200}
    with open(output, "ab") as stream:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                                   env={**(environment or os.environ), MARK: str(folder)}, **options)
    with contextlib.suppress(RuntimeError):  # where the interpreter is ending, there are no more threads
        threading.Thread(target=process.wait, daemon=True).start()  # when it ends before us, it is no zombie
    return process.pid


def note_launched(folder: Path, pid: int) -> None:
    """Remember the process that was started for a run."""
    write_json(folder / LAUNCHED, {"pid": pid, "pid_start": process_start(pid), "host": socket.gethostname()})


def launched_alive(folder: Path) -> bool | None:
    """Whether that process lives; None where none was started here."""
    if not (folder / LAUNCHED).is_file():
        return None
    noted = read_json(folder / LAUNCHED, "note of the process")
    if noted["host"] != socket.gethostname():
        return None
    return noted["pid_start"] is not None and process_start(noted["pid"]) == noted["pid_start"]


def processes_of(folder: Path) -> list[int]:
    """All processes of the run in `folder` that live here, also those that left the session of the first one."""
    mark = f"{MARK}={folder}".encode("utf-8", "surrogateescape")
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is somebody else's
            continue
        if marked and int(entry.name) != os.getpid() and process_start(int(entry.name)) is not None:
            found.append(int(entry.name))
    if not found and not Path("/proc/self").exists() and launched_alive(folder):  # macOS, Windows
        found = [int(read_json(folder / LAUNCHED)["pid"])]
    return found
