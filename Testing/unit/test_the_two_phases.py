"""The halves of `make test`: which test runs in which; a skip on CI fails in processes side by side as well."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
BESIDE = """
import logging
import pytest

def test_passes(): logging.warning("a name of odd bytes: \\udcff")

@pytest.mark.alone
def test_measures(): pass
"""
PANEL = """
import pytest

def test_panel(): pass

@pytest.mark.alone
def test_panel_is_never_held(): pass
"""
SKIPS = """
import pytest

def test_skips(): pytest.skip("no data")

@pytest.mark.gpu
def test_may_skip(): pytest.skip("no GPU")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with our conftest and, in each folder, tests that may run beside others or may not."""
    files = {"unit/test_beside.py": BESIDE, "slicer/test_module.py": PANEL,
             "remote/test_server.py": "def test_server(): pass\n"}
    for name, text in files.items():
        (tmp_path / "Testing" / name).parent.mkdir(parents=True)
        (tmp_path / "Testing" / name).write_text(text)
    shutil.copy(TESTS / "conftest.py", tmp_path / "Testing")
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    return tmp_path


def outcomes(project: Path, *options: str, ci: str = "") -> tuple[int, dict[str, str]]:
    """The exit status of pytest, and what became of each test."""
    ended = subprocess.run([sys.executable, "-m", "pytest", "-v", "-rA", "-p", "no:cacheprovider", *options],
                           cwd=project, capture_output=True, text=True, env=os.environ | {"CI": ci}, check=False)
    return ended.returncode, {name.rpartition("::")[2]: outcome for outcome, name in re.findall(
        r"^(PASSED|FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)}


@pytest.mark.parametrize(("phase", "found"), [
    ("together", {"test_passes", "test_panel"}),
    ("alone", {"test_measures", "test_panel_is_never_held", "test_server"})])
def test_each_test_is_in_one_phase(project: Path, phase: str, found: set[str]) -> None:
    code, tests = outcomes(project, f"--phase={phase}")
    assert code == 0 and tests == dict.fromkeys(found, "PASSED")


def test_of_what_is_named_each_phase_takes_its_own(project: Path) -> None:
    assert outcomes(project, "--phase=together", "Testing/remote/test_server.py") == (5, {})
    assert outcomes(project, "--phase=alone", "Testing/slicer/test_module.py") == (
        0, {"test_panel_is_never_held": "PASSED"})


def test_servers_are_not_even_imported_beside_other_tests(project: Path) -> None:
    (project / "Testing" / "remote" / "test_server.py").write_text("raise RuntimeError('imported')\n")
    assert outcomes(project, "--phase=together") == (0, {"test_passes": "PASSED", "test_panel": "PASSED"})
    assert outcomes(project, "--phase=alone")[0] == 2


def test_on_ci_a_skip_fails_unless_its_mark_allows_it(project: Path) -> None:
    (project / "Testing" / "unit" / "test_skips.py").write_text(SKIPS)
    (project / "Testing" / "unit" / "test_absent.py").write_text("import pytest\npytest.importorskip('no_module')\n")
    code, tests = outcomes(project, "--phase=together", "-n2", "--continue-on-collection-errors", ci="true")
    assert code == 1
    assert tests == {"test_passes": "PASSED", "test_panel": "PASSED", "test_skips": "FAILED",
                     "Testing/unit/test_absent.py": "ERROR"}
