"""Files to a target with rsync, over the connections that calls use."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from medmae.jobs import ssh
from medmae.jobs.diagnosis import FAILED_SSH, problem_of_ssh
from medmae.jobs.problems import ConnectionLost
from medmae.jobs.target import Target

SILENCE_S = 120
NOT_FOUND = 127
_PROGRESS = re.compile(rb"\s*([\d,.]+)\s+\d+%")
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


class NoRoom(Exception):
    """The disk there is full."""


class NoRsync(Exception):
    """There is no rsync on the other side after all."""


def can_push(target: Target, *, is_there: bool) -> bool:
    """Whether both sides have rsync, and the host's name cannot be taken for something else."""
    return target.host is not None and is_there and ":" not in target.host and shutil.which("rsync") is not None


def push(target: Target, files: Mapping[str, Path], folder: str, arrived: Callable[[int], object]) -> None:
    """Copy files to a folder on the target; what is there of a file is not sent again.

    Args:
        target: a computer over SSH.
        files: name there to file here.
        folder: there, absolute; it exists.
        arrived: takes the bytes that went, as they go.

    Raises:
        ConnectionLost: what has arrived stays.
        TargetProblem: the target cannot be reached.
        NoRoom: the disk there is full.
        NoRsync: there is no rsync there.
    """
    with tempfile.TemporaryDirectory(prefix="medmae-") as temporary:
        for name, file in files.items():
            Path(temporary, name).symlink_to(file.absolute())
        # No path is part of a command line there (--protect-args), and files grow in place, so that they can go on.
        command = ["rsync", "--copy-links", "--recursive", "--append-verify", "--protect-args", "--chmod=F600",
                   f"--timeout={SILENCE_S}", "--info=progress2", "--no-human-readable", "--outbuf=N",
                   f"--rsh={ssh.rsync_shell(target)}", f"{temporary}/", f"{target.host}:{folder}/"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   start_new_session=True, env={**ssh.environment(), "LC_ALL": "C"})
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in _lines(process.stdout):
                if found := _PROGRESS.match(line):
                    arrived(int(re.sub(rb"\D", b"", found[1])))
            said = process.stderr.read().decode(errors="replace")
            code = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
    if code:
        raise _problem(target, code, said)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """What is told over and over in the same line, too."""
    text = b""
    while data := stream.read1(1 << 16):  # type: ignore[attr-defined]
        *lines, text = re.split(rb"[\r\n]", text + data)
        yield from lines


def _problem(target: Target, code: int, said: str) -> Exception:
    last = said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
    if any(text in said for text in _FULL):
        return NoRoom(next(line for line in said.splitlines() if any(text in line for text in _FULL)))
    if code == NOT_FOUND:
        return NoRsync(last)
    if code == FAILED_SSH:
        return problem_of_ssh(target, said)
    return ConnectionLost("connection lost", f"The upload to {target.host} ended: {last}.", "Try again.")
