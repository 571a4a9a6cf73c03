"""What is read of the scores of a project's models: from runs that are there, gone, damaged, or changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from MedMAETrainLib.LearningPoints import LearningPoints
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectRun
from panel_fixtures import LABELS, model_info

from medmae.files import write_json
from medmae.home import runs_folder
from medmae.models import resolve_model
from medmae.run_folder import RunFolder


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    with Project.create(tmp_path / "project", "Brains") as project:
        yield project


@pytest.fixture
def trained(project, installed):
    """Note a model with its run: trained(name, cases, scores, annotation=..., file=...)."""
    infos = []

    def make(name, cases, dice, annotation=b"as drawn", file="validation.json", encoder="none", training=(), **more):
        path = runs_folder() / f"run-{name}"
        run = RunFolder.create(path, "finetune", {"method": "gl-mae", "steps": 3}, {
            "dataset": str(path / "data" / "dataset.json"), "encoder": "none"})
        (path / "data" / "labels").mkdir(parents=True)
        items = [{"id": f"case-{number}", "image": f"/images/{number}.nrrd", "label": f"labels/{number}.nrrd",
                  "subject": f"subject-{number}"} for number in range(len(dice))]
        for number in range(len(dice)):
            (path / "data" / "labels" / f"{number}.nrrd").write_bytes(annotation)
        write_json(path / "data" / "dataset.json", {"name": "Brains", "labels": {"left": 1}, "validation": items,
                                                  "training": [{"id": case} for case in training]})
        write_json(path / file, {"mean_dice": sum(dice) / len(dice), **more, "cases": [
            {"image": f"case-{number}", "dice": {"left": value}} for number, value in enumerate(dice)]})
        infos.append(model_info(name, labels=LABELS, training={"cases": cases}, created=f"2026-11-{cases:02d}",
                                scores={"validation": {"mean_dice": 0.5}}))
        installed(*infos)
        project.putRun(ProjectRun(run.path.name, "segmentation", ("case-1",), f"2026-11-{cases:02d}", encoder, name))
        return run.path

    return make


def lines(curve):
    return [[point.model for point in line.points] for line in curve.series]


def test_models_that_were_measured_on_the_same_annotations_stand_in_one_line(project, trained):
    trained("four", 4, [0.5, 0.7])
    trained("eight", 8, [0.6, 0.8], selected_on="validation")
    curve = LearningPoints().read(project)
    assert lines(curve) == [["four", "eight"]] and curve.problems == ()
    point = curve.points[1]
    assert (point.cases, point.score, point.how, point.isSelected) == (8, pytest.approx(0.7), "validation", True)
    assert point.settings == ("method=gl-mae", "steps=3")
    assert [(one.case, one.subject) for one in point.scored] == [("case-0", "subject-0"), ("case-1", "subject-1")]


def test_an_annotation_that_was_changed_begins_another_line(project, trained):
    trained("four", 4, [0.5, 0.7])
    trained("eight", 8, [0.6, 0.8], annotation=b"drawn anew")
    curve = LearningPoints().read(project)
    assert lines(curve) == [["eight"], ["four"]] and curve.advice.gain is None


def test_a_cross_validation_is_no_validation(project, trained):
    trained("four", 4, [0.5, 0.7])
    trained("eight", 8, [0.6, 0.8], file="cross_validation.json")
    assert lines(LearningPoints().read(project)) == [["eight"], ["four"]]


def test_of_a_run_that_is_gone_the_model_knows_the_score(project, trained):
    shutil.rmtree(trained("four", 4, [0.5, 0.7]))
    (point,) = LearningPoints().read(project).points
    assert (point.score, point.cases, point.how, point.scored) == (0.5, 4, "validation", ())


def test_damaged_scores_and_models_that_were_removed_are_told_and_hide_no_others(project, trained, monkeypatch):
    import medmae.models

    real = resolve_model
    (trained("four", 4, [0.5]) / "validation.json").write_text('{"cases": [{}]}')
    trained("eight", 8, [0.6])
    project.putRun(ProjectRun("run-x", "segmentation", (), "2026-11-30", model="removed"))
    monkeypatch.setattr(medmae.models, "resolve_model", lambda name: real(name) if name == "removed" else Path(name))
    project.putRun(ProjectRun("run-y", "pretraining", (), "2026-11-30", model="encoder"))
    curve = LearningPoints().read(project)
    assert [point.model for point in curve.points] == ["eight"]
    assert curve.problems[0] == "four is left out: the scores of its run run-four are damaged."
    assert curve.problems[1].startswith("removed is left out: ")


@pytest.mark.parametrize("value", ["high", "0.5", float("nan"), float("inf"), 1e300, True, [1]])
def test_scores_that_are_none_are_damaged(project, trained, value):
    trained("eight", 8, [0.6])
    path = trained("four", 4, [0.5])
    for scores in ({"mean_dice": value, "cases": []}, {"cases": [{"image": "case-0", "dice": {"left": value}}]}):
        (path / "validation.json").write_text(json.dumps(scores))
        curve = LearningPoints().read(project)
        assert [point.model for point in curve.points] == ["eight"] and "run-four are damaged" in curve.problems[0]


def test_a_model_whose_forebears_have_learned_from_its_test_is_left_out(project, trained):
    first = trained("two", 2, [0.5, 0.5], training=["case-1"])
    trained("four", 4, [0.6, 0.6], encoder="two", training=["case-7"])
    trained("six", 6, [0.7, 0.7], encoder=str(runs_folder() / "run-four"), training=["case-7"])
    trained("eight", 8, [0.8, 0.8], training=["case-7"])
    trained("nine", 9, [0.8, 0.8], encoder="eight", training=["case-8"])
    for _time in range(2):
        curve = LearningPoints().read(project)
        assert [point.model for point in curve.points] == ["two", "eight", "nine"]
        assert [problem.partition(", which has learned from 1 of the 2 cases")[0] for problem in curve.problems] == [
            "four is left out: its training began with two", "six is left out: its training began with two"]
        shutil.rmtree(first / "data", ignore_errors=True)  # then it may have learned from any


def test_annotations_of_which_nothing_is_known_are_not_taken_for_the_same(project, trained):
    for name, cases in (("four", 4), ("eight", 8)):
        shutil.rmtree(trained(name, cases, [0.5, 0.7]) / "data" / "labels")
    assert LearningPoints().read(project).advice.gain is None


def test_what_was_read_is_read_again_only_when_it_has_changed(project, trained, monkeypatch):
    import MedMAETrainLib.LearningPoints as module

    path, read = trained("four", 4, [0.5]), []
    real = module._read
    monkeypatch.setattr(module, "_read", lambda *each: read.append(each) or real(*each))
    points = LearningPoints()
    assert points.read(project) == points.read(project) and len(read) == 1
    write_json(path / "validation.json", {"mean_dice": 0.9, "cases": []})
    assert points.read(project).points[0].score == 0.9 and len(read) == 2
