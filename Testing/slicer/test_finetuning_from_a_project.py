"""A project is trained on as it is when training starts, and knows afterwards what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.home import runs_folder
from medmae.run_folder import RunFolder

FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
A = np.s_[1:3, 2:5, 1:4]


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
def project(logic, tmp_path, make_volume, make_segmentation):
    project = logic.createProject(tmp_path / "project", "Livers")
    for size in (6, 7):
        volume = make_volume((size, 8, 10))
        project.addCase(volume, make_segmentation(volume, {"liver": A}))
    project.addCase(make_volume((8, 8, 10)))
    return project


def test_the_run_sees_the_project_and_the_project_the_run_and_its_model(logic, engine, project):
    engine("progress")
    assert logic.finetune(project, name="my liver", method="gl-mae", steps=3, waitForCompletion=True) == "my liver"
    (run,) = project.runs
    assert (run.task, run.cases, run.encoder, run.model) == ("segmentation", ("case-0001", "case-0002"), "none",
                                                             "my liver")
    assert [(model.name, model.run) for model in project.models] == [("my liver", run.id)]
    folder = RunFolder.open(runs_folder() / run.id)
    assert folder.spec["config"] == {"method": "gl-mae", "steps": 3, "device": "auto"}
    dataset = load_dataset(folder.spec["inputs"]["dataset"])
    assert [case.id for case in dataset.cases("unlabeled")] == ["case-0003"]
    assert all(path.is_file() for case in dataset.cases("training") for path in (*case.images, case.label))


def test_what_changes_later_does_not_reach_a_run_under_way(logic, engine, project):
    engine("work=60")
    job = logic.finetune(project)
    before = Path(job.run.spec["inputs"]["dataset"]).read_text()
    label = load_dataset(job.run.spec["inputs"]["dataset"]).cases("training")[0].label
    voxels = label.read_bytes()
    volume, segmentation = project.openCase("case-0001")
    identity = segmentation.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones((6, 8, 10), np.uint8), segmentation, identity, volume)
    for _time in range(3):
        project.saveCase(segmentation)
    project.setRole("case-0001", "test")
    assert Path(job.run.spec["inputs"]["dataset"]).read_text() == before
    assert label.read_bytes() == voxels
    assert project.runs[0].model is None


@pytest.mark.parametrize("becomes", [lambda label: None, lambda label: label.mkdir()])
def test_a_segmentation_that_is_gone_is_told_before_anything_begins(logic, engine, project, becomes):
    label = project.file(project.cases[1].label)
    label.unlink()
    becomes(label)
    with pytest.raises(BadInput, match="of case-0002 cannot be taken"):
        logic.finetune(project, method="gl-mae")
    assert not logic.runs() and not project.runs


def test_a_model_that_came_while_slicer_was_closed_is_found_when_the_project_is_opened(logic, engine, project):
    engine("work=60")
    job = logic.finetune(project, name="my liver")
    job.cancel()
    request = job.run.path / "slicer.json"
    request.write_text(json.dumps({**json.loads(request.read_text()), "installed": "my liver"}))
    folder = project.path
    logic.closeProjects()
    again = TrainLogic().openProject(folder)
    assert again.runs[0].model == "my liver" and again.models[0].name == "my liver"
    again.close()


def test_a_project_closed_before_the_run_ends_does_no_harm(logic, engine, project):
    engine("progress")
    job = logic.finetune(project, name="my liver")
    project.close()
    assert job.wait() == "my liver"
    assert logic.openProject(project.path).runs[0].model == "my liver"


def test_a_project_that_teaches_nothing_starts_nothing(logic, engine, project):
    engine()
    project.setState("case-0001", "predicted")
    project.setState("case-0002", "predicted")
    with pytest.raises(ValueError, match="No case of the project can be trained on"):
        logic.finetune(project)
    assert not runs_folder().exists() and project.runs == ()


def test_classes_of_whole_images_are_trained_on(logic, engine, project):
    engine("progress")
    project.setClass("case-0001", "healthy")
    project.setClass("case-0002", "ill/<b>?")
    logic.finetune(project, task="classification", waitForCompletion=True)
    dataset = load_dataset(RunFolder.open(runs_folder() / project.runs[0].id).spec["inputs"]["dataset"])
    assert (dataset.task, dataset.labels) == ("classification", {"healthy": 0, "ill/<b>?": 1})
    assert project.models[0].name == "healthy illb"


def test_an_open_project_is_given_again(logic, project):
    assert logic.openProject(str(project.path)) is project
    project.close()
    again = logic.openProject(project.path)
    assert again is not project and again.cases == project.cases
