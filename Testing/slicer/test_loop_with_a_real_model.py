"""Once round the loop with a real, tiny model: predict, rank, open, correct, and learn from it."""

from __future__ import annotations

import numpy as np
import pytest
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.home import runs_folder
from medmae.volumes import read_label

BOXES = {"left": np.s_[4:10, 4:12, 2:8], "right": np.s_[4:10, 4:12, 10:16]}
SETTINGS = {"input_size": (16, 16, 16), "batch_size": 1, "preview": False}


@pytest.fixture
def project(tmp_path, make_volume, make_segmentation, monkeypatch):
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    logic = TrainLogic()
    project = logic.createProject(tmp_path / "project", "Boxes")
    for number in range(3):
        volume = make_volume((14, 16, 18 + number), name=f"annotated {number}")
        project.addCase(volume, make_segmentation(volume, BOXES))
    project.setRole("case-0003", "validation")
    for number in range(2):
        project.addCase(make_volume((15, 16, 18 + number), name=f"new {number}"))
    yield logic, project
    logic.closeProjects()


def test_once_round_the_loop(project):
    logic, project = project
    how = {"steps": 2, "device": "cpu", "settings": SETTINGS, "waitForCompletion": True}
    assert logic.finetune(project, "none", "first", method="gl-mae", preset="tiny", **how) == "first"
    result = logic.predictAndRank(project, device="cpu", waitForCompletion=True)
    assert set(result.done) == {"case-0004", "case-0005"} and not result.failed
    for case in project.cases[3:]:
        truth, image = read_label(project.file(case.label)), read_label(project.file(case.image))
        assert case.state == "predicted" and truth.geometry.shape == image.geometry.shape
        assert np.allclose(truth.geometry.affine, image.geometry.affine, atol=1e-4)
    ranking = logic.ranking(project)
    assert ranking.model == "first" and not ranking.stale
    assert all(0 <= one.score <= 1 for one in ranking.cases) and ranking.cases[0].score >= ranking.cases[1].score
    case = logic.nextCase(project)
    volume, segmentation = logic.openNext(project)
    saved = logic.markCorrected(project, case, segmentation, volume, allowMissing=True)
    assert saved.isAnnotated and saved.role == "training"
    assert logic.finetune(project, "first", "second", **how) == "second"
    run = project.runs[-1]
    assert (run.encoder, case.id in run.cases, logic.newestModel(project)) == ("first", True, "second")
    log = (runs_folder() / run.id / "log.txt").read_text()
    assert "new: nothing" in log  # encoder, decoder and head go on from where they were
    _check(logic.learningCurve(project))
    assert "newer model, second" in logic.ranking(project).stale[0]


def _check(curve):
    assert [(point.model, point.cases, point.how, point.encoder) for point in curve.points] == [
        ("first", 2, "validation", "none"), ("second", 3, "validation", "first")]
    (line,) = curve.series  # both were measured on the same case, with the same annotation
    (scored,) = line.points[0].scored
    assert (scored.case, set(scored.values)) == ("case-0003", {"left", "right"}) and scored.reference
    assert curve.problems == () and curve.advice.verdict == "unknown" and "one patient;" in curve.advice.reason
