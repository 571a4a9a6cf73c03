"""Another Python than Slicer's: found, examined by the doctor, kept in the settings, used by the child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from MedMAESegmentLib import Dependencies, Doctor, Interpreter
from MedMAESegmentLib.ChildProcess import ChildProcess


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """The settings of the application, in a file of their own."""
    from PySide6.QtCore import QSettings

    file = str(tmp_path / "Slicer.ini")
    monkeypatch.setitem(sys.modules, "qt", SimpleNamespace(QSettings=lambda: QSettings(file, QSettings.IniFormat)))


@pytest.fixture
def bare(tmp_path):
    """A virtual environment without any package."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    return tmp_path / "bare"


@pytest.fixture
def doctor(tmp_path):
    """A program that answers in place of a Python with the doctor."""
    def write(script):
        file = tmp_path / "python"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return str(file)

    return write


READY = """echo '{"medmae": "0.1.0", "ready": true, "checks": [
 {"name": "Python", "outcome": "ok", "finding": "3.12.1", "remedy": ""},
 {"name": "GPU", "outcome": "warning", "finding": "none", "remedy": "Update the driver."}]}'"""
NOT_READY = """echo '{"medmae": "0.1.0", "ready": false, "checks": [
 {"name": "torch", "outcome": "failed", "finding": "not usable", "remedy": "pip install torch"}]}'; exit 1"""


def test_without_a_choice_slicers_own_python_computes():
    assert Interpreter.chosenInterpreter() == Interpreter.slicersInterpreter()
    assert Interpreter.chosenInterpreter().executable == sys.executable


def test_the_folder_of_an_environment_is_as_good_as_its_program(bare):
    program = Interpreter.findInterpreter(bare).executable
    assert program == str(bare / "bin" / "python")
    assert Interpreter.findInterpreter(program).executable == program


def test_a_path_without_a_python_is_explained(tmp_path):
    with pytest.raises(ValueError, match="There is no Python at .*nowhere"):
        Doctor.useInterpreter(tmp_path / "nowhere")


def test_a_python_that_is_ready_is_kept_for_later_sessions(doctor):
    report = Doctor.useInterpreter(doctor(READY))
    assert report.ready
    assert "warning GPU: none\n        -> Update the driver." in report.text
    assert report.text.endswith("MedMAE can compute with this Python.")
    assert Interpreter.chosenInterpreter() == Interpreter.Interpreter(doctor(READY))
    Interpreter.saveInterpreter(Interpreter.slicersInterpreter())
    assert Interpreter.chosenInterpreter().isSlicers


def test_one_that_is_not_ready_is_refused_with_the_reason_and_the_choice_stays(doctor):
    with pytest.raises(ValueError, match="(?s)cannot compute with .*python.*torch: not usable. pip install torch"):
        Doctor.useInterpreter(doctor(NOT_READY))
    assert Interpreter.chosenInterpreter().isSlicers


def test_one_without_the_packages_says_how_to_install_them(bare):
    report = Doctor.examine(Interpreter.findInterpreter(bare))
    assert not report.ready
    assert "No module named 'click'" in report.problem
    assert f'"{bare}/bin/python" -m pip install "torch>=2.8,!=2.9.*" -r' in report.text


def test_this_python_passes_its_own_examination():
    report = Doctor.examine(Interpreter.Interpreter(sys.executable))
    assert report.ready, report.text
    assert {check["name"] for check in report.checks} >= {"Python", "torch", "monai", "SimpleITK"}


@pytest.mark.alone
def test_one_that_never_answers_is_given_up_and_ended(doctor, tmp_path):
    begun = time.monotonic()
    report = Doctor.examine(Interpreter.Interpreter(doctor(f"echo $$ > {tmp_path}/pid; exec sleep 60")), timeout=0.5)
    assert time.monotonic() - begun < 10
    assert "no answer within" in report.problem
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_one_that_cannot_be_started_is_explained(tmp_path):
    file = tmp_path / "python"
    file.write_text("not a program")
    file.chmod(0o755)
    assert "cannot be started" in Doctor.examine(Interpreter.Interpreter(str(file))).problem


def test_the_application_stays_alive_during_the_examination(application, doctor, monkeypatch):
    turns = []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: turns.append(1))
    Doctor.examine(Interpreter.Interpreter(doctor("sleep 0.5; exit 1")))
    assert len(turns) > 5


def test_another_python_does_not_see_slicers_packages_but_this_engine(bare, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/Slicer/lib/Python")
    monkeypatch.setenv("PYTHONHOME", "/Slicer")
    environment = Interpreter.findInterpreter(bare).environment()
    code = "import medmae, sys; print(medmae.__file__, sys.prefix, '/Slicer/lib/Python' in sys.path)"
    said = subprocess.run([bare / "bin" / "python", "-c", code], env=environment, capture_output=True, text=True,
                          check=True).stdout.split()
    root = Path(__file__).resolve().parents[2]
    assert said == [str(root / "medmae" / "__init__.py"), str(bare), "False"]
    assert "/Slicer/lib/Python" in Interpreter.slicersInterpreter().environment()["PYTHONPATH"]


def test_child_processes_run_in_the_chosen_python(doctor, tmp_path):
    program = doctor(f'[ "$2" = medmae.cli ] && {{ {READY}\nexit; }}; echo "$@" > {tmp_path}/called')
    Doctor.useInterpreter(program)
    child = ChildProcess(tmp_path)
    child.start()
    assert child.waitForExit(10)
    assert (tmp_path / "called").read_text().split() == ["-m", "medmae.run", str(tmp_path), "--exit-with-parent"]


def test_the_worker_runs_in_the_chosen_python(application, doctor, tmp_path):
    from MedMAESegmentLib.WorkerSession import WorkerSession

    Doctor.useInterpreter(doctor(f'[ "$2" = medmae.cli ] && {{ {READY}\nexit; }}; echo "$@" > {tmp_path}/called'))
    session = WorkerSession()
    session.client.send("models")
    deadline = time.monotonic() + 10
    while not (tmp_path / "called").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    session.close()
    assert (tmp_path / "called").read_text().split()[:2] == ["-m", "medmae.worker"]


def test_nothing_is_installed_into_slicer_when_another_python_computes(doctor, monkeypatch):
    Doctor.useInterpreter(doctor(READY))
    monkeypatch.setattr(Dependencies.InstallPlan, "of", lambda _file: pytest.fail("looked into Slicer's Python"))
    Dependencies.ensureInstalled(confirm=lambda plan: pytest.fail("asked"))


def test_a_chosen_python_that_was_deleted_is_named(doctor):
    program = doctor(READY)
    Doctor.useInterpreter(program)
    Path(program).unlink()
    with pytest.raises(RuntimeError, match=f"{program}, is not there any more. Choose another one"):
        Dependencies.ensureInstalled()


def test_outside_of_the_application_the_choice_cannot_be_kept(monkeypatch):
    monkeypatch.setitem(sys.modules, "qt", None)
    assert Interpreter.chosenInterpreter().isSlicers
    with pytest.raises(RuntimeError, match="cannot be kept"):
        Interpreter.saveInterpreter(Interpreter.Interpreter("/some/python"))
