"""The Python of a target: found, or made from a lock file and a wheelhouse."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medmae.jobs import environment
from medmae.jobs.environment import LOCK, MODULES, ensure_environment
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target
from medmae.jobs.transport import connect


def silent(stage: str, done: int, total: int) -> None:
    """Take no reports."""


def make_wheel(folder: Path, name: str, size: int = 0) -> str:
    """A wheel of a package with one module; returns its line in a lock file."""
    information = f"{name}-1.0.dist-info"
    files = {f"{name}.py": f"NAME = {name!r}\n" + "# filler\n" * size,
             f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    record = "".join(f"{path},sha256={_digest(text.encode())},{len(text)}\n" for path, text in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny packages, and the lock file that names them."""
    folder = tmp_path / "wheels of ours"
    folder.mkdir()
    lock = tmp_path / "environment.lock"
    lock.write_text(make_wheel(folder, "tinyfirst") + make_wheel(folder, "tinysecond"))
    monkeypatch.setattr(environment, "LOCK", lock)
    monkeypatch.setattr(environment, "MODULES", ("tinyfirst", "tinysecond"))
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def target(**changes: object) -> Target:
    return Target(**{"name": "here", "python": sys.executable, **changes})  # type: ignore[arg-type]


def environments(folder: Path) -> list[Path]:
    return [path for path in (folder / "environments").iterdir() if path.is_dir()]


@pytest.mark.alone
def test_an_environment_is_made_from_the_wheelhouse_and_found_again(wheelhouse: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a folder there"
    told: list[tuple[int, int]] = []
    transport = connect(target(wheelhouse=str(wheelhouse)))
    python = ensure_environment(transport, str(folder), lambda stage, done, total: told.append((done, total)))
    assert python.startswith(f"{folder}/environments/")
    script = "import tinyfirst, tinysecond; print(tinyfirst.NAME, tinysecond.NAME)"
    answer = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "tinyfirst tinysecond\n"
    assert told[-1] == (2, 2)
    assert sorted(path.name for path in environments(folder)[0].iterdir() if path.name in ("READY", "tmp")) == ["READY"]
    (wheelhouse / "tinyfirst-1.0-py3-none-any.whl").unlink()
    begun = time.monotonic()
    assert ensure_environment(transport, str(folder), silent) == python
    assert time.monotonic() - begun < 2


def test_another_lock_makes_another_environment_and_leaves_the_first(wheelhouse: Path, tmp_path: Path) -> None:
    transport = connect(target(wheelhouse=str(wheelhouse)))
    first = ensure_environment(transport, str(tmp_path / "there"), silent)
    environment.LOCK.write_text(environment.LOCK.read_text() + make_wheel(wheelhouse, "tinythird"))
    second = ensure_environment(transport, str(tmp_path / "there"), silent)
    assert first != second
    assert Path(first).exists()


@pytest.mark.parametrize(("spoil", "code", "words"), [
    (lambda folder: (folder / "tinyfirst-1.0-py3-none-any.whl").unlink(), "libraries", "not to be had"),
    (lambda folder: make_wheel(folder, "tinysecond", size=1), "libraries", "hash differs"),
])
def test_a_wheelhouse_that_does_not_fit_is_told_and_nothing_is_left(
        wheelhouse: Path, tmp_path: Path, spoil: Callable[[Path], object], code: str, words: str) -> None:
    spoil(wheelhouse)
    with pytest.raises(TargetProblem) as raised:
        ensure_environment(connect(target(wheelhouse=str(wheelhouse))), str(tmp_path / "there"), silent)
    assert raised.value.code == code
    assert words in raised.value.finding
    assert "wheelhouse" in raised.value.remedy
    assert environments(tmp_path / "there") == []


def test_without_network_the_remedy_is_a_wheelhouse(wheelhouse: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(TargetProblem) as raised:
        ensure_environment(connect(target()), str(tmp_path / "there"), silent)
    assert "cannot be reached" in raised.value.finding
    assert "wheelhouse" in raised.value.remedy


def test_a_full_disk_is_told(wheelhouse: Path, tmp_path: Path) -> None:
    make_wheel(wheelhouse, "tinysecond", size=400_000)
    lines = environment.LOCK.read_text().splitlines()
    large = hashlib.sha256((wheelhouse / "tinysecond-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    environment.LOCK.write_text(f"{lines[0]}\ntinysecond==1.0 --hash=sha256:{large}\n")
    with pytest.raises(TargetProblem) as raised:
        ensure_environment(connect(target(wheelhouse=str(wheelhouse), preamble=("ulimit -f 4000",))),
                           str(tmp_path / "there"), silent)
    assert raised.value.code == "disk full"
    assert environments(tmp_path / "there") == []


@pytest.mark.alone
def test_a_killed_installation_is_made_anew(wheelhouse: Path, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    transport = connect(target(wheelhouse=str(wheelhouse)))
    killed = threading.Thread(target=_kill_pip, args=(folder,))
    killed.start()
    with pytest.raises(TargetProblem):
        ensure_environment(transport, str(folder), silent)
    killed.join()
    python = ensure_environment(transport, str(folder), silent)
    subprocess.run([python, "-c", "import tinyfirst, tinysecond"], check=True)


def _kill_pip(folder: Path) -> None:
    """Kill whatever installs into `folder`, as soon as it does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words and b"--require-hashes" in words:
                os.kill(int(entry.name), signal.SIGKILL)
                return
        time.sleep(0.01)


def test_what_a_dead_call_left_is_no_environment(wheelhouse: Path, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    transport = connect(target(wheelhouse=str(wheelhouse)))
    python = Path(ensure_environment(transport, str(folder), silent))
    place = python.parents[1]
    (place / "READY").unlink()
    next(place.rglob("tinysecond.py")).unlink()
    assert ensure_environment(transport, str(folder), silent) == str(python)
    subprocess.run([python, "-c", "import tinyfirst, tinysecond"], check=True)


def test_two_submissions_at_once_make_one_environment(wheelhouse: Path, tmp_path: Path) -> None:
    found: list[str] = []
    transport = connect(target(wheelhouse=str(wheelhouse)))

    def submit() -> None:
        found.append(ensure_environment(transport, str(tmp_path / "there"), silent))

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    subprocess.run([found[0], "-c", "import tinyfirst, tinysecond"], check=True)


def test_a_python_of_the_user_is_taken_as_it_is(tmp_path: Path) -> None:
    assert ensure_environment(connect(target(environment="python")), str(tmp_path), silent) == sys.executable


def test_a_python_that_lacks_packages_is_refused_with_their_names(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MODULES", ("json", "no_such_package", "nor_this"))
    with pytest.raises(TargetProblem, match="lacks no_such_package, nor_this"):
        ensure_environment(connect(target(environment="python")), str(tmp_path), silent)


def test_in_a_container_its_python_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MODULES", ("json",))
    inside = target(environment="python", container=("env", "INSIDE=yes"))
    assert ensure_environment(connect(inside), str(tmp_path), silent) == sys.executable
    broken = target(environment="python", container=("no-such-runtime", "exec"))
    with pytest.raises(TargetProblem, match="no-such-runtime"):
        ensure_environment(connect(broken), str(tmp_path), silent)
    with pytest.raises(TargetProblem, match="environment: python"):
        ensure_environment(connect(target(container=("env",))), str(tmp_path), silent)


def test_the_lock_file_names_a_version_and_hashes_of_everything_that_runs_need() -> None:
    text = LOCK.read_text()
    names = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    assert {name.lower() for name in MODULES} <= names
    for requirement in re.split(r"\n(?=\S)", text):
        assert requirement.startswith("#") or "--hash=sha256:" in requirement
