"""The running package as a wheel, and unpacking it on a target."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

import medmae
from medmae.errors import BadInput
from medmae.jobs.there.code import find, unpack
from medmae.jobs.there.serving import Channel
from medmae.jobs.wheel import wheel, wheel_name

PACKAGE = Path(medmae.__file__).parent


def test_a_copy_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "lib" / "Slicer" / "qt-scripted-modules"  # as an extension of Slicer holds it, without pyproject
    shutil.copytree(PACKAGE, copy / "medmae", ignore=shutil.ignore_patterns("__pycache__", "CMakeLists.txt"))
    (copy / "medmae" / "__pycache__").mkdir()
    (copy / "medmae" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"compiled")
    os.utime(copy / "medmae" / "run.py", (1, 1))
    script = ("import hashlib, sys; from medmae.jobs.wheel import wheel; "
              "print(hashlib.sha256(wheel()).hexdigest(), 'setuptools' in sys.modules)")
    told = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(copy)}, cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    assert told.stdout == f"{hashlib.sha256(wheel()).hexdigest()} False\n"


def test_another_source_gives_another_wheel(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "medmae", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "medmae" / "errors.py", "a") as file:
        file.write("\n")
    script = "import hashlib; from medmae.jobs.wheel import wheel; print(hashlib.sha256(wheel()).hexdigest())"
    told = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    assert told.stdout.strip() != hashlib.sha256(wheel()).hexdigest()


def test_the_wheel_holds_the_whole_package_and_nothing_compiled() -> None:
    with zipfile.ZipFile(io.BytesIO(wheel())) as archive:
        names = set(archive.namelist())
    sources = {f"medmae/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert sources <= names
    assert {"medmae/py.typed", "medmae/jobs/environment.lock"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_pip_installs_it(tmp_path: Path) -> None:
    file = tmp_path / wheel_name()
    file.write_bytes(wheel())
    place = tmp_path / "installed"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile",
                    "--target", str(place), str(file)], check=True)
    script = "import medmae.run, importlib.metadata as m; print(medmae.run.__file__, m.version('medmae'))"
    told = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(place)}, cwd=tmp_path,
                          capture_output=True, text=True, check=True)
    assert told.stdout == f"{place}/medmae/run.py {medmae.__version__}\n"
    assert (place / "bin" / "medmae").is_file()


def unpacked(folder: Path, content: bytes, sha256: str | None = None) -> Path:
    which = {"folder": str(folder), "sha256": sha256 or hashlib.sha256(content).hexdigest()}
    return Path(unpack(which, Channel(io.BytesIO(zlib.compress(content)), io.BytesIO()))["path"])


def test_it_is_unpacked_once_and_found_again(tmp_path: Path) -> None:
    which = {"folder": str(tmp_path), "sha256": hashlib.sha256(wheel()).hexdigest()}
    channel = Channel(io.BytesIO(), io.BytesIO())
    assert find(which, channel)["path"] is None
    place = unpacked(tmp_path, wheel())
    assert find(which, channel)["path"] == str(place)
    assert unpacked(tmp_path, wheel()) == place  # two submissions at the same time
    assert [path.name for path in (tmp_path / "code").iterdir()] == [which["sha256"]]
    assert (place / "medmae" / "run.py").read_bytes() == (PACKAGE / "run.py").read_bytes()


@pytest.mark.parametrize("name", ["../escaped.py", "medmae/../../../escaped.py", "/tmp/escaped-medmae.py"])
def test_a_wheel_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("medmae/__init__.py", "")
        archive.writestr(name, "escaped")
    with pytest.raises(BadInput):
        unpacked(tmp_path / "there", buffer.getvalue())
    assert not list(tmp_path.rglob("*.py"))
    assert not Path("/tmp/escaped-medmae.py").exists()


def test_a_wheel_that_arrives_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="damaged"):
        unpacked(tmp_path, b"something else", hashlib.sha256(b"another").hexdigest())
    assert not (tmp_path / "code").exists()


def test_no_other_name_than_a_hash_is_taken(tmp_path: Path) -> None:
    for sha256 in ("../../elsewhere", "", "A" * 64, "a" * 63):
        with pytest.raises(BadInput):
            find({"folder": str(tmp_path), "sha256": sha256}, Channel(io.BytesIO(), io.BytesIO()))
