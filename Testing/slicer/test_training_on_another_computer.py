"""Training goes on on another computer, whatever becomes of the connection and of Slicer, and the model comes home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import slicer
from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed
from MedMAETrainLib import RemoteTrainingJob
from MedMAETrainLib.RunNames import ownNames
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.errors import BadInput
from medmae.home import models_folder
from medmae.jobs import fetching
from medmae.jobs.calling import operate
from medmae.jobs.job import list_jobs
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target
from medmae.models import load_info

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "remote"))
NAME = "DOE^JANE"
SHORT = {"method": "vis-mae", "preset": "tiny", "steps": 2, "device": "cpu"}


@pytest.fixture
def server(tmp_path, monkeypatch):
    from ssh_server import HOST, SshServer, find_sshd

    program = find_sshd()
    if program is None:
        pytest.skip("needs sshd; on Debian and Ubuntu: make system, as root")
    (tmp_path / "sshd").mkdir()
    server = SshServer(tmp_path / "sshd", program)
    server.start()
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(server.config))
    add_target(Target("gpu-box", kind="ssh", host=HOST, folder=str(tmp_path / "there"), environment="python",
                      python=sys.executable, gpus=0))
    yield server
    server.stop()


@pytest.fixture
def logic(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(RemoteTrainingJob, "LOOK_EVERY_SECONDS", 0.3)
    logic = TrainLogic()
    yield logic
    for job in list(logic.jobs):
        job.cancel()
        _until(lambda job=job: job.ended, job)
    logic.closeProjects()


@pytest.fixture
def project(logic, tmp_path, make_volume, make_segmentation):
    import numpy as np

    project = logic.createProject(tmp_path / "project", NAME)
    for slices in (5, 6):
        volume = make_volume((slices, 40, 44), name=NAME)
        project.addCase(volume, make_segmentation(volume, {"liver": np.s_[1:3, 2:25, 1:24]}))
    return project


def _until(condition, *jobs):
    deadline = time.monotonic() + 120  # generous: the machine may be busy
    while not condition():
        told = [(job.status, job.error) for job in jobs]
        assert time.monotonic() < deadline and not (jobs and all(job.ended for job in jobs)), told
        for job in jobs:
            job.poll()
        time.sleep(0.02)


SLICER = """
import sys, time
sys.path[:0] = sys.argv[1:4]
from mrml_application import MrmlApplication
MrmlApplication()
from MedMAETrainLib.TrainLogic import TrainLogic
logic = TrainLogic()
project = logic.openProject(sys.argv[4])
job = logic.finetune(project, "none", "from there", method="vis-mae", preset="tiny", steps=2, target="gpu-box")
print(job.id, *({"torch", "monai"} & set(sys.modules)), flush=True)
time.sleep(60)
"""


@pytest.mark.alone
def test_slicer_is_killed_and_the_connection_lost_and_the_model_comes_home(
        logic, project, server, tmp_path, monkeypatch):
    project.close()
    slicer_process = subprocess.Popen(
        [sys.executable, "-c", SLICER, HERE, HERE.parents[1] / "MedMAESegment", HERE.parents[1] / "MedMAETrain",
         project.path], stdout=subprocess.PIPE, text=True)
    runId = slicer_process.stdout.readline().strip()
    os.kill(slicer_process.pid, signal.SIGKILL)
    slicer_process.communicate()
    project = logic.openProject(project.path)
    (job,) = logic.findRunning()
    assert (job.id, job.target, job.kind, job.modelName) == (runId, "gpu-box", "finetune", "from there")
    assert [(entry.target, entry.task, entry.project) for entry in logic.runs(project)] == [
        ("gpu-box", "segmentation", project.uid)]
    _until(lambda: job.status.state in ("queued", "running"), job)
    server.stop()
    _until(lambda: job.status.state == "unreachable", job)
    assert job.error is None and job.status.reason and logic.runs()[0].status.state == "unreachable"
    server.start()
    beats = []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: beats.append(time.monotonic()))
    assert job.wait() == "from there" and job.status.state == "done"
    gaps = sorted(after - before for before, after in zip(beats, beats[1:], strict=False))
    assert not gaps[:-1] or gaps[-2] < 0.1, "one longer turn is that of a busy machine"
    assert load_info("from there").labels[1]["name"] == "liver"
    _isCheckedWithoutTorch(models_folder() / "from there", tmp_path)
    assert [run.model for run in project.runs] == ["from there"] and logic.reportFile(job.id).is_file()
    assert [point.reference for point in logic.startingPoints()] == ["from there"]
    told = b"".join(file.read_bytes() for file in (tmp_path / "there").rglob("*.json"))
    assert b"liver" in told and b"JANE" not in told and str(project.path).encode() not in told
    logic.removeRun(job.id)
    assert logic.runs() == [] and list((tmp_path / "there" / "runs").iterdir()) == [] and list_jobs() == []


def _isCheckedWithoutTorch(model, folder):
    """A computer that leaves computing to others looks at what is said of a model, and at its hash."""
    (folder / "torch.py").write_text("raise ModuleNotFoundError('No module named torch')")
    checker = (sys.executable, {**os.environ, "PYTHONPATH": str(folder)})
    fetching._check_model(None, model, checker)
    damaged = shutil.copytree(model, folder / "damaged")
    with open(damaged / "weights.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(BadInput, match="weights"):
        fetching._check_model(None, damaged, checker)


@pytest.fixture
def beside(tmp_path, engine):
    """A target beside this process, of which only the engine is a stand-in."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nfor run; do :; done\nexec "{sys.executable}" "{HERE / "fake_engine.py"}" "$run"\n')
    python.chmod(0o755)
    add_target(Target("beside", environment="python", python=str(python), gpus=0))
    engine("progress", "work=60")


def test_a_run_elsewhere_is_stopped_resumed_and_ended(logic, project, beside):
    job = logic.finetune(project, name="long", target="beside", **SHORT)
    _until(lambda: job.status.state == "running" and job.status.step == 3, job)
    with pytest.raises(BadInput, match="under way"):
        logic.removeRun(job.id)
    logic.stopRun(job.id)
    assert job.status.state == "stopping"
    _until(lambda: job.ended, job)
    assert job.status.state == "stopped" and isinstance(job.error, RunCancelled)
    (entry,) = logic.runs(project)
    assert (entry.status.state, entry.canResume, entry.target) == ("stopped", True, "beside")
    assert TrainLogic().findRunning() == [], "it was told"
    again = logic.resumeRun(job.id)
    _until(lambda: again.status.state == "running", again)
    logic.cancelRun(job.id)
    _until(lambda: again.ended, again)
    assert again.state == "cancelled" and isinstance(again.error, RunCancelled) and again.run.spec == job.run.spec
    (again.run.log_file).write_text("what was done\n")
    assert logic.logText(job.id) == "what was done\n"
    logic.removeRun(job.id)
    assert logic.runs() == [] and not job.run.path.exists()


def test_two_slicers_take_the_model_of_a_run_elsewhere_once(logic, project, beside, engine, monkeypatch):
    taken = []

    def install(folder, name=None, replace=False):
        taken.append(name)
        return Path("/models") / name

    monkeypatch.setattr("medmae.models.install_model", install)
    monkeypatch.setattr("medmae.jobs.fetching._check", lambda job, checker: None)  # the stand-in makes no model
    job = logic.finetune(project, name="shared", target="beside", **SHORT)
    (found,) = TrainLogic().findRunning()
    _until(lambda: job.status.state == found.status.state == "running", job, found)
    job.stop()
    _until(lambda: job.ended and found.ended, job, found)
    engine("progress")
    again = logic.resumeRun(job.id)
    (found,) = TrainLogic().findRunning()
    assert (again.wait(), found.wait(), taken) == ("shared", "shared", ["shared"])


def test_a_target_that_cannot_compute_is_told_and_mended_and_the_run_resumed(logic, project, server, tmp_path):
    from ssh_server import HOST

    bare = Target("bare", kind="ssh", host=HOST, folder=str(tmp_path / "there"), environment="python", gpus=0,
                  python="/no/such/python")
    add_target(bare)
    job = logic.pretrain(project, target="bare", **SHORT)
    assert job.status.state == "submitting"
    with pytest.raises(RunFailed, match="There is no /no/such/python"):
        job.wait()
    (entry,) = logic.runs()
    assert (entry.status.state, entry.kind, entry.canResume, entry.model) == ("failed", "pretrain", True, None)
    assert "medmae job" not in (entry.status.remedy or "") and "esume the run" in entry.status.remedy
    assert json.loads((entry.folder / "slicer.json").read_text())["told"] is True
    add_target(replace(bare, python=sys.executable), replace=True)
    again = logic.resumeRun(entry.id)
    _until(lambda: again.status.state in ("queued", "running"), again)
    logic.cancelRun(entry.id)
    _until(lambda: again.ended, again)
    logic.removeRun(entry.id)
    assert logic.runs() == []


def test_a_run_of_a_target_that_is_gone_for_good_is_forgotten_here(logic, project, server, tmp_path):
    job = logic.finetune(project, target="gpu-box", **{**SHORT, "steps": 100_000})
    with pytest.raises(BadInput, match="under way"):
        logic.removeRun(job.id, onlyHere=True)  # its data are on the way
    _until(lambda: job.status.state in ("queued", "running"), job)
    server.stop()
    _until(lambda: job.status.state == "unreachable", job)
    with pytest.raises(BadInput, match="under way"):
        logic.removeRun(job.id)
    known = list_jobs()[0]
    logic.removeRun(job.id, onlyHere=True)
    assert logic.runs() == logic.jobs == [] and not job.run.path.exists()
    server.start()
    operate(known.target, "runs.kill", {"run": known.folder, "grace_s": 1})


def test_what_a_run_elsewhere_says_of_cases_is_told_with_the_names_that_they_have_here(tmp_path):
    def case(own):
        return {"id": own, "name": own, "images": [f"/mine/cases/{own}/image.nrrd"], "label": None}

    (tmp_path / "cases.json").write_text(json.dumps({
        "cases": {"case-0001": case("case-0002"), "case-0002": case("case-0003")}, "subjects": {}, "unreadable": []}))
    said = "case-0001, case-0002: sheared. inputs/images/case-0001.nrrd is damaged; case-0009 is not."
    assert ownNames(tmp_path, said) == (
        "case-0002, case-0003: sheared. /mine/cases/case-0002/image.nrrd is damaged; case-0009 is not.")
    assert ownNames(tmp_path / "no such mirror", said) == said


def test_what_cannot_be_is_told_before_anything_is_sent(logic, project):
    for options, problem in (({"settings": {"batch": 3}}, "batch"), ({"settings": {"patience": 2}}, "validation"),
                             ({"settings": {"cases": 9}}, "only 2"), ({"target": "nowhere"}, "no target nowhere")):
        with pytest.raises(BadInput, match=problem):
            logic.finetune(project, **{"method": "vis-mae", "target": "local", **options})
    assert logic.runs() == [] and list_jobs() == [] and project.runs == ()
