"""A finetuning run outlives whoever started it, and its model ends up in the list of models."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medmae.errors import BadInput
from medmae.home import models_folder, runs_folder
from medmae.run_folder import RunFolder, process_start

FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
A, B = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9]


@pytest.fixture
def installed(monkeypatch):
    """What was installed, as (folder, name); nothing is computed, so there is no model to install."""
    import medmae.models

    calls = []

    def install(folder, name=None, replace=False):
        calls.append((Path(folder), name))
        return Path("/registry") / name

    monkeypatch.setattr(medmae.models, "install_model", install)
    return calls


@pytest.fixture
def logic(installed):
    from MedMAETrainLib.TrainLogic import TrainLogic

    logic = TrainLogic()
    logic.engineCommand = FAKE_ENGINE
    yield logic
    for job in list(logic.jobs):
        job.cancel()


def close_slicer(logic):
    """As if the first Slicer were gone: nobody follows its jobs any more."""
    for job in logic.jobs:
        job.stopFollowing()
    logic.jobs.clear()


@pytest.fixture
def cases(make_volume, make_segmentation):
    volumes = [make_volume(name="DOE^JANE"), make_volume((7, 8, 10))]
    return [(volume, make_segmentation(volume, {"liver": A, "spleen": B})) for volume in volumes]


def test_the_run_gets_the_cases_and_the_choices(logic, engine, cases):
    engine("progress")
    logic.finetune(cases, encoder="none", method="gl-mae", preset="tiny", steps=5, seed=3, device="cpu",
                   settings={"batch_size": 1}, waitForCompletion=True)
    run = RunFolder.open(next(runs_folder().iterdir()))
    assert run.spec["kind"] == "finetune"
    assert run.spec["config"] == {"method": "gl-mae", "preset": "tiny", "steps": 5, "seed": 3, "device": "cpu",
                                  "batch_size": 1}
    data = json.loads(Path(run.spec["inputs"]["dataset"]).read_text())
    assert [item["id"] for item in data["training"]] == ["case_001", "case_002"]
    assert run.spec["inputs"]["encoder"] == "none"


def test_the_finished_model_is_installed_once_under_the_given_name(logic, engine, cases, installed):
    engine("progress")
    assert logic.finetune(cases, name="Abdomen", waitForCompletion=True) == "Abdomen"
    assert [name for _, name in installed] == ["Abdomen"]
    assert logic.findRunning() == []


def test_without_a_name_the_labels_make_one_that_the_registry_accepts(logic, engine, cases, installed):
    engine()
    logic.finetune(cases, waitForCompletion=True)
    assert [name for _, name in installed] == ["liver spleen"]


def test_a_taken_name_gets_a_number_also_when_a_damaged_model_has_it(logic, engine, cases, installed):
    for name in ("Abdomen", "abdomen 2"):
        (models_folder() / name).mkdir(parents=True)
    engine()
    assert logic.finetune(cases, name="Abdomen", waitForCompletion=True) == "Abdomen 3"


def test_the_call_returns_while_the_run_goes_on(logic, engine, cases):
    engine("work=60")
    job = logic.finetune(cases)
    assert not job.poll()
    job.stop()
    _until(job.poll)
    assert job.state == "stopped"
    assert "stopped on request" in str(job.error)


def test_another_slicer_finds_the_run_and_installs_its_model(logic, engine, cases, installed):
    from MedMAETrainLib.TrainLogic import TrainLogic

    engine("work=0.5", "progress")
    job = logic.finetune(cases, name="Abdomen")
    close_slicer(logic)
    _until(lambda: job.run.state()["state"] == "running")
    job._process.waitForExit(10)
    again = TrainLogic().findRunning()
    assert len(again) == 1
    assert again[0].wait() == "Abdomen"
    assert [name for _, name in installed] == ["Abdomen"]


def test_a_run_of_an_earlier_slicer_can_be_ended(logic, engine, cases, tmp_path):
    from MedMAETrainLib.TrainLogic import TrainLogic

    engine(f"grandchild={tmp_path / 'pid'}", "work=60")
    job = logic.finetune(cases)
    close_slicer(logic)
    _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    again = TrainLogic().findRunning()
    assert process_start(int((tmp_path / "pid").read_text())) is not None
    again[0].cancel()
    _until(lambda: process_start(int((tmp_path / "pid").read_text())) is None)
    job._process.waitForExit(5)


def test_an_exception_of_the_caller_does_not_end_the_training(logic, engine, cases):
    engine("progress", "work=60")

    def callback(fraction, message):
        if message.startswith("Windows"):
            raise ZeroDivisionError("mistake of the caller")

    with pytest.raises(ZeroDivisionError):
        logic.finetune(cases, progressCallback=callback, waitForCompletion=True)
    assert logic.jobs[0].run.state()["state"] == "running"


def test_unusable_cases_start_nothing(logic, engine, cases, application):
    engine()
    before = application.leftovers()
    with pytest.raises(ValueError, match="no segmentation"):
        logic.finetune([*cases, (cases[0][0], None)])
    with pytest.raises(BadInput, match="no model"):
        logic.finetune(cases, encoder="something unknown")
    assert not runs_folder().exists()
    assert application.leftovers() == before


def test_the_runs_reason_becomes_the_exception(logic, engine, cases):
    from MedMAESegmentLib.FollowedJob import RunFailed

    engine("fail")
    with pytest.raises(RunFailed, match="The image is sheared"):
        logic.finetune(cases, waitForCompletion=True)


def test_handing_over_and_training_are_both_told(logic, engine, cases):
    engine("progress")
    told = []
    logic.finetune(cases, progressCallback=lambda fraction, message: told.append(message), waitForCompletion=True)
    assert "Handing over case 2 of 2" in told and "Windows 3 of 3, about 0 s left" in told


@pytest.mark.parametrize(("plan", "reason"), [("fail", "The image is sheared"), ("die", "ended without saying why")])
def test_a_run_that_ended_while_slicer_was_closed_is_told_once(logic, engine, cases, plan, reason):
    from MedMAETrainLib.TrainLogic import TrainLogic

    engine(plan)
    job = logic.finetune(cases)
    close_slicer(logic)
    assert job._process.waitForExit(20)
    found = TrainLogic().findRunning()
    assert [found_job.poll() for found_job in found] == [True]
    assert reason in str(found[0].error)
    assert TrainLogic().findRunning() == []


def test_a_killed_run_says_how_to_go_on_when_it_has_learned_something(logic, engine, cases):
    engine("work=60")
    job = logic.finetune(cases)
    _until(lambda: job.run.state()["state"] == "running")
    job.run.checkpoints.mkdir()
    (job.run.checkpoints / "last.safetensors").touch()
    job._process.killTree()
    _until(job.poll)
    assert "exit code -9" in str(job.error) and "resume the run" in str(job.error)
    (entry,) = logic.runs()
    assert (entry.status.state, entry.canResume) == ("interrupted", True) and "exit code -9" in entry.status.reason


def test_a_run_that_never_began_is_not_waited_for_for_ever(logic, engine, cases):
    from MedMAETrainLib.LocalTrainingJob import LocalTrainingJob

    engine("work=60")
    job = logic.finetune(cases)
    job._process.killTree()
    state = json.loads(job.run.state_file.read_text())
    job.run.state_file.write_text(json.dumps({**state, "state": "queued", "updated": time.time() - 1000}))
    found = LocalTrainingJob(job.run)
    assert found.poll() and "has never begun" in str(found.error)


def test_damaged_runs_do_not_hide_the_others(logic, engine, cases):
    from MedMAETrainLib.TrainLogic import TrainLogic

    for name, files in {"a": {"slicer.json": "{}"}, "b": {"slicer.json": "nonsense", "spec.json": "{}"}, "c": {
            "slicer.json": '{"name": "x", "installed": null, "told": true}', "spec.json": "{}",
            "state.json": ""}}.items():
        (runs_folder() / name).mkdir(parents=True)
        for file, text in files.items():
            (runs_folder() / name / file).write_text(text)
    engine("work=60")
    job = logic.finetune(cases)
    assert [found.run.path for found in TrainLogic().findRunning()] == [job.run.path]


def test_a_run_that_cannot_start_leaves_nothing_behind(logic, cases):
    logic.engineCommand = ["/no/such/interpreter"]
    with pytest.raises(OSError, match="No such file"):
        logic.finetune(cases)
    assert list(runs_folder().iterdir()) == []


def test_cancelling_while_cases_are_handed_over_starts_nothing(logic, engine, cases, monkeypatch):
    import slicer
    from MedMAESegmentLib.FollowedJob import RunCancelled

    engine("work=60")
    monkeypatch.setattr(slicer.app, "processEvents", logic.cancelHandOver)
    with pytest.raises(RunCancelled):
        logic.finetune(cases)
    assert logic.jobs == [] and list(runs_folder().iterdir()) == []


def test_a_home_that_cannot_be_written_is_explained(logic, cases, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="MEDMAE_HOME"):
        logic.finetune(cases)


def test_a_run_folder_deleted_meanwhile_ends_the_job(logic, engine, cases):
    from MedMAESegmentLib.FollowedJob import RunFailed

    engine("work=60")
    job = logic.finetune(cases)
    found = logic.findRunning() or [job]
    found[0]._process.killTree()
    shutil.rmtree(job.run.path)
    _until(job.poll)
    assert isinstance(job.error, RunFailed)


def _until(condition):
    deadline = time.monotonic() + 60  # generous: the machine may be busy
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
