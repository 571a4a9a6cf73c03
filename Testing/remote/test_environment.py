"""An environment is made over a real connection, also one that is cut meanwhile."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import SshServer

import medmae
from medmae.jobs import environment
from medmae.jobs.environment import ensure_environment
from medmae.jobs.problems import ConnectionLost
from medmae.jobs.target import Target
from medmae.jobs.transport import connect
from medmae.jobs.wheel import wheel, wheel_name

pytestmark = pytest.mark.remote


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one package, our own, and a lock file that names it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / wheel_name()).write_bytes(wheel())
    lock = tmp_path / "environment.lock"
    lock.write_text(f"medmae=={medmae.__version__} --hash=sha256:{hashlib.sha256(wheel()).hexdigest()}\n")
    monkeypatch.setattr(environment, "LOCK", lock)
    monkeypatch.setattr(environment, "MODULES", ("medmae",))
    return folder


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def processes_about(folder: Path) -> list[str]:
    """Command lines in which a folder is named."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if str(folder) in line]


def test_a_connection_that_is_cut_leaves_nothing_half_and_the_next_makes_it(
        ssh_target: Callable[..., Target], sshd: SshServer, wheelhouse: Path, tmp_path: Path, hostile: str) -> None:
    folder = tmp_path / hostile
    transport = connect(ssh_target(environment="venv", wheelhouse=str(wheelhouse)))

    def cut_when_pip_works() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any("--require-hashes" in line for line in processes_about(folder)):
            time.sleep(0.01)
        sshd.cut()

    cutting = threading.Thread(target=cut_when_pip_works)
    cutting.start()
    with pytest.raises(ConnectionLost):
        ensure_environment(transport, str(folder), silent)
    cutting.join()
    python = ensure_environment(transport, str(folder), silent)
    subprocess.run([python, "-c", "import medmae.errors"], check=True, cwd="/")
    assert [path for path in (folder / "environments").iterdir() if path.is_dir()] == [Path(python).parents[1]]
    deadline = time.monotonic() + 20
    while (left := processes_about(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert ensure_environment(transport, str(folder), silent) == python
