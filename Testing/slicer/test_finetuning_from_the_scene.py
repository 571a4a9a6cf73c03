"""A finetuning run outlives whoever started it, and its model ends up in the list of models."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from medmae.errors import BadInput
from medmae.home import runs_folder
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
    monkeypatch.setattr("MedMAETrainLib.TrainingJob._keepLook", lambda model, labels: None)
    return calls


@pytest.fixture
def logic(installed):
    from MedMAETrainLib.TrainLogic import TrainLogic

    logic = TrainLogic()
    logic.engineCommand = FAKE_ENGINE
    yield logic
    for job in list(logic.jobs):
        job.cancel()


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


def test_a_taken_name_gets_a_number(logic, engine, cases, installed, monkeypatch):
    import medmae.models

    monkeypatch.setattr(medmae.models, "list_models", lambda: [("Abdomen", None), ("abdomen 2", None)])
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
    logic.jobs.clear()  # the first Slicer is closed
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
    logic.jobs.clear()
    _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    again = TrainLogic().findRunning()
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
    from MedMAESegmentLib.RunJob import RunFailed

    engine("fail")
    with pytest.raises(RunFailed, match="The image is sheared"):
        logic.finetune(cases, waitForCompletion=True)


def test_handing_over_and_training_are_both_told(logic, engine, cases):
    engine("progress")
    told = []
    logic.finetune(cases, progressCallback=lambda fraction, message: told.append(message), waitForCompletion=True)
    assert "Handing over case 2 of 2" in told and "Windows 3 of 3, about 0 s left" in told


def _until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
