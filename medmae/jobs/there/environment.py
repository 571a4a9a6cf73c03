"""The Python that runs use on a target: one that is there, or ``FOLDER/environments/<hash>/`` made for them.

An environment is finished when it holds the file READY, which is written last; what a killed installation left is
removed by the next. While pip works, the lock of the environment is also its own, so that nobody begins a second time
beside one that has lost its parent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from medmae.jobs.there.data import medmae_folder
from medmae.jobs.there.serving import Channel

READY = "READY"
LOOK = """
import importlib.util, json, sys
print(json.dumps([name for name in json.loads(sys.argv[1]) if importlib.util.find_spec(name) is None]))
"""
TOLD_EVERY_SECONDS = 2.0
KEPT_LINES = 200
_REQUIREMENT = re.compile(r"^[\w.-]+==", re.MULTILINE)
_NOT_FOR_PIP = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV")


def look(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Which of `modules` the interpreter [words] `command` lacks; default: the one that answers.

    Returns:
        executable (that answers), absent; or failed: what it said.
    """
    try:
        done = subprocess.run([*(arguments.get("command") or [sys.executable]), "-c", LOOK,
                               json.dumps(arguments["modules"])],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        return {"failed": f"{error.filename}: {error.strerror}"}
    if done.returncode:
        return {"failed": done.stderr.strip()[-2000:] or f"exit code {done.returncode}"}
    return {"executable": sys.executable, "absent": json.loads(done.stdout.splitlines()[-1])}


def prepare(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Make the environment of a lock file, or find it.

    Args:
        arguments: folder (of MedMAE), lock (the text of the file), wheelhouse (a folder with wheels; None: from the
            index), modules (that it must have).
        channel: is told how many of how many packages are done.

    Returns:
        python: the interpreter; or failed: the last lines of what was said.
    """
    environments = medmae_folder(arguments) / "environments"
    kind = "\0".join((arguments["lock"], platform.python_version(), platform.machine(), sys.platform, sys.base_prefix))
    place = environments / hashlib.sha256(kind.encode()).hexdigest()[:32]
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (place / READY).is_file():
        environments.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(environments / f"{place.name}.lock", channel) as lock:
            if not (place / READY).is_file():
                failed = _make(place, python, arguments, _Installation(channel, lock))
                if failed:
                    return {"failed": failed}
    return {"python": str(python)}


def _make(place: Path, python: Path, arguments: dict[str, Any], installation: _Installation) -> str:
    """Make the environment; returns why it could not be made."""
    shutil.rmtree(place, ignore_errors=True)
    cache = place.parent / "cache"  # of downloads, kept when the installation breaks off
    finished = False
    try:
        # The pip that is there already is quicker than one of its own.
        has_pip = importlib.util.find_spec("pip") is not None
        failed = installation.run([sys.executable, "-m", "venv", *["--without-pip"] * has_pip, str(place)], {})
        if failed:
            return failed
        (place / "tmp").mkdir()
        lock = place / "environment.lock"
        lock.write_text(arguments["lock"], encoding="utf-8")
        installation.total = len(_REQUIREMENT.findall(arguments["lock"]))
        source = ["--no-index", "--find-links", str(Path.home() / Path(arguments["wheelhouse"]).expanduser())
                  ] if arguments["wheelhouse"] else []
        failed = installation.run(
            [*([sys.executable, "-m", "pip", "--python", str(python)] if has_pip else [str(python), "-m", "pip"]),
             "install", "--require-hashes", "--no-deps", "--only-binary=:all:", "--no-input",
             "--disable-pip-version-check", "--progress-bar=off", "--retries=2", "--cache-dir", str(cache), *source,
             "--requirement", str(lock)], {"TMPDIR": str(place / "tmp")})
        failed = failed or _lacking(python, arguments["modules"], installation.channel)
        if failed:
            return failed
        for rest in (cache, place / "tmp"):
            shutil.rmtree(rest, ignore_errors=True)
        (place / READY).write_text(f"{time.time():.0f}\n", encoding="utf-8")
        finished = True
        return ""
    finally:
        if not finished:
            shutil.rmtree(place, ignore_errors=True)


def _lacking(python: Path, modules: Sequence[str], channel: Channel) -> str:
    found = look({"command": [str(python)], "modules": modules}, channel)
    return found.get("failed") or "; ".join(f"There is no {name} in it." for name in found["absent"])


class _Installation:
    """Runs programs and tells the caller that they live, and what pip is at."""

    def __init__(self, channel: Channel, lock: int) -> None:
        self.channel, self._lock = channel, lock
        self.done = self.total = 0

    def run(self, command: Sequence[str], environment: dict[str, str]) -> str:
        """Run to the end; returns what was said if it failed. It ends with us."""
        own = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_PIP}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env=own | {"LC_ALL": "C.UTF-8"} | environment, start_new_session=True,
                                   pass_fds=(self._lock,) if self._lock >= 0 else ())
        assert process.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
        said: deque[str] = deque(maxlen=KEPT_LINES)
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    line = lines.get(timeout=TOLD_EVERY_SECONDS)
                    if line is None:
                        break
                    said.append(line)
                    self.done += line.startswith(("Collecting ", "Processing "))
                self.channel.report(done=min(self.done, self.total), total=self.total)
            return "" if process.wait() == 0 else "\n".join(said) or f"exit code {process.returncode}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _read(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line.decode(errors="replace").rstrip())
    lines.put(None)


@contextlib.contextmanager
def _one_at_a_time(file: Path, channel: Channel) -> Iterator[int]:
    """The descriptor of a lock that one process has at a time; -1 where there are no locks."""
    if os.name == "nt":
        yield -1
        return
    import fcntl

    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    channel.report(waiting=True)
                    time.sleep(TOLD_EVERY_SECONDS / 4)
                    continue
            break
        yield handle
    finally:
        os.close(handle)
