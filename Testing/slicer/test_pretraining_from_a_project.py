"""An encoder is pretrained on images without labels: what it sees, what is refused, and what can be done with it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.errors import BadInput
from medmae.home import runs_folder
from medmae.models import load_info
from medmae.run_folder import RunFolder

FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
TINY = {"batch_size": 1, "workers": 0}


@pytest.fixture
def logic(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    logic = TrainLogic()
    yield logic
    for job in list(logic.jobs):
        job.cancel()
    logic.closeProjects()


@pytest.fixture
def fake_logic(logic, monkeypatch):
    import medmae.models

    monkeypatch.setattr(medmae.models, "install_model", lambda folder, name=None, replace=False: Path("/models") / name)
    logic.engineCommand = FAKE_ENGINE
    return logic


@pytest.fixture
def project(logic, tmp_path, make_volume, make_segmentation):
    project = logic.createProject(tmp_path / "project", "Livers")
    for role in ("training", "validation", "test"):
        volume = make_volume((12, 40, 44) if role == "training" else (6, 8, 10), name=role)
        project.addCase(volume, make_segmentation(volume, {"liver": np.s_[1:3, 2:5, 1:4]}), role=role, again=True)
    project.addCase(make_volume((12, 42, 44), name="unlabelled"))
    return project


def test_an_encoder_sees_images_for_training_and_unlabelled_ones_and_no_label(fake_logic, engine, project):
    engine("progress")
    assert fake_logic.pretrain(project, method="vis-mae", steps=3, seed=1, waitForCompletion=True) == "Livers encoder"
    (run,) = project.runs
    assert (run.task, run.cases, run.encoder, run.model) == ("pretraining", ("case-0001", "case-0004"), "none",
                                                             "Livers encoder")
    spec = RunFolder.open(runs_folder() / run.id).spec
    assert spec["kind"] == "pretrain"
    assert spec["config"] == {"method": "vis-mae", "steps": 3, "seed": 1, "device": "auto"}
    data = json.loads(Path(spec["inputs"]["dataset"]).read_text())
    assert {"training", "validation", "test", "labels"}.isdisjoint(data)
    assert [item["id"] for item in data["unlabeled"]] == ["case-0001", "case-0004"]
    assert all("label" not in item and Path(item["image"]).is_file() for item in data["unlabeled"])
    (entry,) = fake_logic.runs(project)
    assert (entry.kind, entry.task, entry.status.state, entry.model) == ("pretrain", "pretraining", "done",
                                                                         "Livers encoder")


def test_folders_of_images_are_learned_from_too(fake_logic, engine, project, tmp_path):
    engine("progress")
    job = fake_logic.pretrain([tmp_path / "project" / "cases"], modality="CT", settings={"balance": True},
                              waitForCompletion=False)
    assert job.run.spec["inputs"] == {"images": [str(tmp_path / "project" / "cases")]}
    assert job.run.spec["config"] == {"device": "auto", "balance": True, "modality": "CT"}
    assert (job.kind, job.task, job.modelName) == ("pretrain", "pretraining", "cases encoder")
    assert job.wait() == "cases encoder"


@pytest.mark.parametrize(("options", "problem"), [
    ({"settings": {"batch": 3}}, "batch"), ({"method": "moco"}, "moco"), ({"preset": "huge"}, "huge"),
    ({"encoder": "brains"}, "starts from scratch"), ({"target": "nowhere"}, "no target nowhere"),
    ({"settings": {"spacing_mm": "all"}}, "spacing_mm")])
def test_what_cannot_be_is_told_before_anything_begins(fake_logic, engine, project, options, problem):
    engine()
    with pytest.raises(BadInput, match=problem):
        fake_logic.pretrain(project, **options)
    assert not list(runs_folder().glob("*")) and project.runs == ()


def test_images_that_are_not_there_are_told_before_anything_begins(fake_logic, engine, tmp_path):
    engine()
    with pytest.raises(BadInput, match="nowhere"):
        fake_logic.pretrain(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no images"):
        fake_logic.pretrain([])
    project = fake_logic.createProject(tmp_path / "empty")
    with pytest.raises(ValueError, match="no images"):
        fake_logic.pretrain(project)
    assert not list(runs_folder().glob("*"))


@pytest.mark.slow
def test_a_pretrained_encoder_is_where_finetuning_starts(logic, project):
    assert logic.startingPoints("pretraining") == logic.startingPoints() == []
    name = logic.pretrain(project, "my encoder", method="vis-mae", preset="tiny", steps=2, device="cpu", modality="CT",
                          settings=TINY, waitForCompletion=True)
    (point,) = logic.startingPoints()
    assert (point.reference, point.kind, point.method, point.preset, point.modality, point.spatialDims) == (
        name, "encoder", "vis-mae", "tiny", "CT", 2)
    model = logic.finetune(project, name, steps=2, device="cpu", settings={"batch_size": 1, "validations": 1},
                           waitForCompletion=True)
    info = load_info(model)
    assert (info.task, info.method, model) == ("segmentation", "vis-mae", "liver") and info.scores
    assert [run.task for run in project.runs] == ["pretraining", "segmentation"]
    assert project.runs[1].encoder == name and [point.kind for point in logic.startingPoints()] == ["encoder", "model"]
    newest, oldest = logic.runs(project)
    assert (newest.model, oldest.model) == (model, name) and newest.project == project.uid
    assert logic.reportFile(newest.id).is_file() and "pretraining vis-mae" in logic.logText(oldest.id)
