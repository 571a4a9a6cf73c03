"""All runs of this computer are listed, stopped, resumed and removed, whoever has started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.errors import BadInput
from medmae.home import runs_folder
from medmae.run_folder import RunFolder, process_start

HERE = Path(__file__).parent
FAKE_ENGINE = [sys.executable, str(HERE / "fake_engine.py")]


@pytest.fixture
def logic(monkeypatch):
    import medmae.models

    monkeypatch.setattr(medmae.models, "install_model", lambda folder, name=None, replace=False: Path("/models") / name)
    logic = TrainLogic()
    logic.engineCommand = FAKE_ENGINE
    yield logic
    for job in list(logic.jobs):
        job.cancel()
    logic.closeProjects()


@pytest.fixture
def cases(make_volume, make_segmentation):
    volume = make_volume()
    return [(volume, make_segmentation(volume, {"liver": np.s_[1:3, 2:5, 1:4]}))]


def _until(condition, *jobs):
    deadline = time.monotonic() + 60  # generous: the machine may be busy
    while not condition():
        assert time.monotonic() < deadline
        for job in jobs:
            job.poll()
        time.sleep(0.02)


def _started(logic, cases, name="Abdomen"):
    job = logic.finetune(cases, name=name, method="gl-mae")
    _until(lambda: job.status.state == "running", job)
    return job


def test_a_run_is_listed_from_its_beginning_to_its_end(logic, engine, cases):
    engine("progress", "work=0.3")
    told = []
    logic.runsChanged.connect(lambda: told.append([(entry.status.state, entry.model) for entry in logic.runs()]))
    job = logic.finetune(cases, name="Abdomen", method="gl-mae")
    assert logic.job(job.id) is job and (job.kind, job.task, job.target) == ("finetune", "segmentation", "")
    assert job.wait() == "Abdomen" and logic.job(job.id) is None
    states = [state for ((state, _model),) in told]
    assert [state for index, state in enumerate(states) if state not in states[:index]] == ["queued", "running", "done"]
    assert told[-1] == [("done", "Abdomen")]
    (entry,) = logic.runs()
    assert (entry.id, entry.name, entry.folder, entry.target, entry.canResume) == (
        job.id, "Abdomen", job.run.path, "", False)
    assert entry.status.fraction == 1 and entry.status.etaSeconds is None


def test_progress_is_told_by_the_list_as_well_as_by_the_job(logic, engine, cases):
    engine("progress", "work=60")
    job = _started(logic, cases)
    _until(lambda: job.status.step == 3, job)
    assert (job.status.stage, job.status.total, job.status.etaSeconds, job.status.fraction) == ("windows", 3, 0, 1)
    assert TrainLogic().runs()[0].status == job.status


def test_a_stopped_run_goes_on_with_its_settings(logic, engine, cases):
    engine("work=60")
    job = _started(logic, cases)
    before = job.run.spec
    logic.stopRun(job.id)
    assert job.status.state == "stopping"
    _until(lambda: job.ended, job)
    assert isinstance(job.error, RunCancelled) and logic.runs()[0].canResume
    with pytest.raises(BadInput, match="has ended"):
        logic.stopRun(job.id)
    engine("progress")
    again = logic.resumeRun(job.id)
    with pytest.raises(BadInput, match="cannot be resumed"):
        logic.resumeRun(job.id)
    assert again.wait() == "Abdomen" and again.run.spec == before
    assert [(entry.status.state, entry.model) for entry in logic.runs()] == [("done", "Abdomen")]
    with pytest.raises(BadInput, match="cannot be resumed"):
        logic.resumeRun(job.id)


def test_a_run_that_has_failed_goes_on_from_a_checkpoint_only(logic, engine, cases):
    engine("fail")
    job = logic.finetune(cases, method="gl-mae")
    with pytest.raises(RunFailed, match="The image is sheared"):
        job.wait()
    assert logic.runs()[0].status.reason == "The image is sheared." and not logic.runs()[0].canResume
    job.run.checkpoints.mkdir()
    (job.run.checkpoints / "last.safetensors").touch()
    assert logic.runs()[0].canResume
    engine("progress")
    assert logic.resumeRun(job.id).wait() == "liver"


def test_a_cancelled_run_was_stopped_as_far_as_the_next_slicer_knows(logic, engine, cases, tmp_path):
    engine(f"grandchild={tmp_path / 'pid'}", "work=60")
    job = _started(logic, cases)
    _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    logic.cancelRun(job.id)
    assert job.ended and isinstance(job.error, RunCancelled)
    _until(lambda: process_start(int((tmp_path / "pid").read_text())) is None)
    assert TrainLogic().findRunning() == [] and TrainLogic().runs()[0].status.state == "stopped"


def test_a_run_under_way_is_not_removed_and_an_ended_one_is_gone(logic, engine, cases):
    engine("work=60")
    job = _started(logic, cases)
    with pytest.raises(BadInput, match="under way"):
        logic.removeRun(job.id)
    logic.stopRun(job.id)
    _until(lambda: job.ended, job)
    logic.removeRun(job.id)
    assert logic.runs() == [] and not job.run.path.exists()
    _until(lambda: list(runs_folder().iterdir()) == [])
    with pytest.raises(BadInput, match="no run"):
        logic.removeRun(job.id)


def test_runs_of_the_command_line_are_listed_stopped_and_resumed(logic, engine):
    engine("progress", "work=60")
    run = RunFolder.create(runs_folder() / "by hand", "pretrain", {}, {"images": ["/scans"]})
    process = subprocess.Popen([*FAKE_ENGINE, str(run.path)])
    try:
        _until(lambda: run.state()["state"] == "running")
        (entry,) = logic.runs()
        assert (entry.id, entry.kind, entry.task, entry.name, entry.status.state) == (
            "by hand", "pretrain", "pretraining", "by hand", "running")
        assert logic.findRunning() == [], "it is nobody's here until somebody wants something of it"
        logic.stopRun("by hand")
        process.wait(30)
    finally:
        process.kill()
    _until(lambda: logic.jobs == [], *logic.jobs)
    assert logic.runs()[0].status.state == "stopped"
    engine("progress")
    assert logic.resumeRun("by hand").wait() == "by hand"


def test_damaged_runs_hide_nothing_and_can_be_removed(logic, engine, cases):
    for name, files in {"a": {"spec.json": "nonsense"}, "b": {"spec.json": '{"kind": 3}'}, "c": {}, "d": {
            "spec.json": '{"kind": "finetune", "config": {}, "inputs": {"dataset": 3}}'}, "e": {
            "spec.json": '{"kind": "finetune", "config": {}, "inputs": {}}', "state.json": "[]"}}.items():
        (runs_folder() / name).mkdir(parents=True)
        for file, text in files.items():
            (runs_folder() / name / file).write_text(text)
    RunFolder.create(runs_folder() / "f", "segment", {}, {})
    engine("work=60")
    job = _started(logic, cases)
    assert {entry.id: entry.status.state for entry in logic.runs()} == {job.id: "running", "e": "failed"}
    assert "damaged" in logic.runs()[1].status.reason or "damaged" in logic.runs()[0].status.reason
    logic.removeRun("e")
    assert [entry.id for entry in logic.runs()] == [job.id]


def test_the_runs_of_a_project_are_told_apart(logic, engine, cases, tmp_path):
    engine("progress")
    project = logic.createProject(tmp_path / "project")
    project.addCase(*cases[0])
    logic.finetune(cases, name="of the scene", method="gl-mae", waitForCompletion=True)
    logic.finetune(project, name="of the project", method="gl-mae", waitForCompletion=True)
    assert [entry.name for entry in logic.runs()] == ["of the project", "of the scene"]
    assert [entry.name for entry in logic.runs(project)] == ["of the project"]


def test_the_log_is_told_before_there_is_one_too(logic, engine, cases):
    engine("crash")
    job = logic.finetune(cases, method="gl-mae")
    with pytest.raises(RunFailed, match="no such library"):
        job.wait()
    assert "RuntimeError: no such library" in logic.logText(job.id) and logic.reportFile(job.id) is None
    job.run.log_file.write_text("the end of\na long log\n")
    assert logic.logText(job.id).endswith("a long log\n")


def test_a_setting_that_is_not_known_begins_nothing(logic, engine, cases):
    engine()
    for options, problem in (({"settings": {"batch": 3}}, "batch"), ({"target": "nowhere"}, "no target nowhere"),
                             ({"settings": {"patience": 2}}, "validation"), ({"task": "classification"}, "classes")):
        with pytest.raises((BadInput, ValueError), match=problem):
            logic.finetune(cases, method="gl-mae", **options)
    assert not list(runs_folder().glob("*"))


def test_a_model_that_cannot_be_taken_is_told_once_and_can_be_taken_later(logic, engine, cases, monkeypatch):
    import medmae.models

    def refuse(folder, name=None, replace=False):
        raise BadInput("Its weights are damaged.")

    with monkeypatch.context() as patch:
        patch.setattr(medmae.models, "install_model", refuse)
        engine("progress")
        job = logic.finetune(cases, name="Abdomen", method="gl-mae")
        with pytest.raises(BadInput, match="damaged"):
            job.wait()
    (entry,) = logic.runs()
    assert (entry.status.state, entry.status.reason, entry.model) == ("failed", "Its weights are damaged.", None)
    assert TrainLogic().findRunning() == []
    assert logic.fetchRun(job.id).wait() == "Abdomen" and logic.runs()[0].status.state == "done"


SLICER = """
import sys, time
sys.path[:0] = sys.argv[1:4]
from mrml_application import MrmlApplication
MrmlApplication()
import chain
from MedMAETrainLib.TrainLogic import TrainLogic
logic = TrainLogic()
logic.engineCommand = sys.argv[4:]
project = logic.createProject(sys.argv[3] + "/project")
project.addCase(*chain.madeCase(1))
jobs = [logic.finetune(project, name=name, method="gl-mae", queue=True) for name in ("first", "second")]
while jobs[0].status.state != "running":
    jobs[0].poll()
print(*(job.id for job in jobs), flush=True)
time.sleep(60)
"""


@pytest.mark.alone
def test_a_slicer_that_is_killed_takes_no_run_with_it(logic, engine, tmp_path):
    engine("progress", "work=1")
    slicer = subprocess.Popen([sys.executable, "-c", SLICER, HERE, HERE.parents[1] / "MedMAESegment",
                               tmp_path, *FAKE_ENGINE], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(HERE.parents[1] / "MedMAETrain")})
    ids = slicer.stdout.readline().split()
    os.kill(slicer.pid, signal.SIGKILL)
    slicer.communicate()
    found = logic.findRunning()
    assert [job.id for job in found] == ids and logic.findRunning() == []
    project = logic.openProject(tmp_path / "project")
    assert [run.id for run in project.runs] == ids
    assert [job.wait() for job in found] == ["first", "second"]
    assert [model.name for model in project.models] == ["first", "second"]
    assert json.loads((found[0].run.path / "slicer.json").read_text())["installed"] == "first"


SCRIPT = """
import subprocess, sys
from pathlib import Path
subprocess.run([sys.executable, *sys.argv[2:]])
Path(sys.argv[1]).touch()
"""


def test_a_cancelled_run_of_a_script_does_not_take_the_script_along(logic, engine, tmp_path):
    engine("work=60")
    run = RunFolder.create(runs_folder() / "of-a-script", "finetune", {}, {"dataset": "none"})
    script = subprocess.Popen([sys.executable, "-c", SCRIPT, tmp_path / "after", FAKE_ENGINE[1], run.path],
                              process_group=0)  # as a shell does it
    _until(lambda: run.state()["state"] == "running")
    logic.cancelRun("of-a-script")
    assert script.wait(20) == 0 and (tmp_path / "after").exists()
    assert logic.runs()[0].status.state == "stopped"
