"""Predict, rank, open, correct: what becomes of the cases of a project, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed
from MedMAETrainLib.LoopLogic import LoopLogic
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectRun
from panel_fixtures import LABELS, model_info

from medmae.errors import BadInput
from medmae.volumes import read_label

ENGINE = [sys.executable, str(Path(__file__).with_name("fake_rank_engine.py"))]
LEFT, RIGHT = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 2:5, 1:4]


@pytest.fixture
def logic(installed):
    """A logic whose engine is a stand-in; "first" and "second" draw left and right."""
    installed(model_info("first", labels=LABELS, weights_sha256="1" * 64),
              model_info("second", labels=LABELS, weights_sha256="2" * 64),
              model_info("liver", labels=[LABELS[0], {"name": "liver", "value": 1}], weights_sha256="3" * 64),
              model_info("encoder", task="encoder"))
    logic = LoopLogic()
    logic.engineCommand = ENGINE
    return logic


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Set what the stand-in for the engine does."""
    def write(*actions):
        (tmp_path / "plan").write_text("\n".join(actions))
        monkeypatch.setenv("FAKE_ENGINE", str(tmp_path / "plan"))

    write()
    return write


@pytest.fixture
def project(tmp_path, make_volume, make_segmentation, plan):
    """One annotated case and three others; a model "first" came of a run."""
    project = Project.create(tmp_path / "project", "Brains")
    volume = make_volume()
    project.addCase(volume, make_segmentation(volume, {"left": LEFT, "right": RIGHT}))
    for number in range(3):
        project.addCase(make_volume((7 + number, 8, 10), name=f"CT {number}"))
    project.putRun(ProjectRun("run-1", "segmentation", ("case-0001",), "2026-11-20T10:00:00+00:00", model="first"))
    yield project
    project.close()


def until(job, condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        job.poll()
        time.sleep(0.01)


def states(project):
    return [case.state for case in project.cases]


def test_predictions_become_the_segmentations_of_the_cases_that_nobody_has_annotated(logic, project):
    told = []
    result = logic.predict(project, progressCallback=lambda *each: told.append(each), waitForCompletion=True)
    assert result.done == ("case-0002", "case-0003", "case-0004") and result.failed == result.leftAlone == ()
    assert states(project) == ["annotated", "predicted", "predicted", "predicted"]
    case = project.case("case-0003")
    drawn = read_label(project.file(case.label))
    values = {label.name: label.value for label in project.labels}
    assert drawn.array.shape[1:] == (8, 8, 10)
    assert np.array_equal(drawn.array[0] == values["right"], mask((8, 8, 10), RIGHT))
    assert case.voxels == {"left": 18, "right": 18} and not case.isAnnotated and case.role == "unlabelled"
    assert np.allclose(drawn.geometry.affine, read_label(project.file(project.cases[0].label)).geometry.affine)
    assert project.thumbnail(case) is not None
    assert told[-1][1] == "Case 3 of 3, about 0 s left"


def mask(shape, box):
    array = np.zeros(shape, bool)
    array[box] = True
    return array


def test_a_prediction_opens_with_the_names_and_colours_of_the_project(logic, project):
    project.setLabel("left", color=(0.1, 0.9, 0.3))
    logic.predict(project, waitForCompletion=True)
    _volume, segmentation = project.openCase("case-0002")
    segments = [segmentation.GetSegmentation().GetNthSegment(number) for number in range(2)]
    assert [segment.GetName() for segment in segments] == ["left", "right"]
    assert segments[0].GetColor() == pytest.approx((0.1, 0.9, 0.3), abs=1e-5)


def test_what_a_person_has_drawn_is_never_replaced(logic, project, make_segmentation):
    volume, segmentation = project.openCase("case-0002")
    begun = segmentation.GetSegmentation().GetSegmentIdBySegmentName("left")
    drawn = np.ones((7, 8, 10), np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, segmentation, begun, volume)
    begun = project.saveCase(segmentation)
    assert begun.state == "unannotated"  # "right" is missing
    result = logic.predict(project, waitForCompletion=True)
    assert result.done == ("case-0003", "case-0004")
    assert project.case("case-0002") == begun


def test_a_case_that_was_annotated_or_removed_meanwhile_is_left_alone(logic, project, plan, make_segmentation):
    plan("pause=0.4")
    job = logic.predict(project)
    volume, _empty = project.openCase("case-0002")
    annotated = project.saveCase(make_segmentation(volume, {"left": LEFT, "right": RIGHT}), volume, case="case-0002")
    project.removeCases("case-0003")
    result = job.wait()
    assert (result.done, set(result.leftAlone)) == (("case-0004",), {"case-0002", "case-0003"})
    assert project.case("case-0002") == annotated
    assert [case.id for case in project.cases] == ["case-0001", "case-0002", "case-0004"]


def test_a_prediction_that_was_accepted_meanwhile_stays_as_it_is(logic, project, plan):
    logic.predict(project, waitForCompletion=True)
    plan("pause=0.3")
    job = logic.predict(project, "second")
    until(job, lambda: job.work._task is not None)  # a newer prediction is being written
    project.setState("case-0002", "annotated")
    accepted = project.case("case-0002")
    assert job.wait().leftAlone == ("case-0002",) and project.case("case-0002") == accepted
    assert project.file(accepted.segmentation).is_file() and project.file(accepted.label).is_file()
    assert len(list((project.path / "cases" / "case-0002").glob("prediction-*.nrrd"))) == 2


def test_what_was_cancelled_goes_on_where_it_ended(logic, project, plan):
    plan("pause=0.3")
    job = logic.predictAndRank(project)
    until(job, lambda: states(project).count("predicted") >= 1)
    job.cancel()
    assert isinstance(job.error, RunCancelled) and logic.loopJob(project) is None
    done = [case.id for case in project.cases if case.state == "predicted"]
    files = {case: project.file(project.case(case).segmentation).stat().st_mtime_ns for case in done}
    result = logic.predictAndRank(project, waitForCompletion=True)
    assert not set(result.done) & set(done) and states(project)[1:] == ["predicted"] * 3
    assert all(project.file(project.case(case).segmentation).stat().st_mtime_ns == time for case, time in files.items())
    assert len(logic.ranking(project).cases) == 3


def test_what_was_finished_before_the_computation_died_stays(logic, project, plan):
    plan("die=3")
    with pytest.raises(RunFailed):
        logic.predict(project, waitForCompletion=True)
    assert states(project) == ["annotated", "predicted", "predicted", "unannotated"]


def test_a_bad_case_does_not_keep_others_from_being_done(logic, project, plan):
    plan("bad=case-0003")
    result = logic.predictAndRank(project, waitForCompletion=True)
    assert result.done == ("case-0002", "case-0004")
    assert result.failed == (("case-0003", "The image is sheared. Resample it first."),)
    assert "One case is not in the order yet." in logic.ranking(project).stale


def test_an_engine_that_cannot_begin_says_why(logic, project, plan):
    plan("refuse")
    with pytest.raises(RunFailed, match=r"The weights are damaged\. Import the model again\."):
        logic.predict(project, waitForCompletion=True)
    assert logic.loopJob(project) is None


def test_the_order_is_kept_with_its_scores_and_says_when_it_is_out_of_date(logic, project, plan, make_volume):
    assert logic.ranking(project) is None and logic.nextCase(project).id == "case-0002"
    plan("score=case-0003:0.9", "score=case-0004:0.5", "score=case-0002:0.1")
    logic.rank(project, waitForCompletion=True)
    assert states(project)[1:] == ["unannotated"] * 3
    ranking = logic.ranking(project)
    assert [(one.position, one.case.id, one.score, one.share) for one in ranking.cases] == [
        (1, "case-0003", 0.9, 1.0), (2, "case-0004", 0.5, pytest.approx(0.5)), (3, "case-0002", 0.1, 0.0)]
    assert (ranking.model, ranking.strategy, ranking.stale) == ("first", "entropy", ())
    project.addCase(make_volume((9, 9, 9), name="new"))
    project.putRun(ProjectRun("run-2", "segmentation", ("case-0001",), "2026-11-21T10:00:00+00:00", model="second"))
    assert logic.newestModel(project) == "second"
    first, second = logic.ranking(project).stale
    assert "a newer model, second" in first and second == "One case is not in the order yet."
    assert logic.nextCase(project).id == "case-0003"


def test_only_what_is_missing_in_the_order_is_looked_at(logic, project, make_volume):
    logic.rank(project, waitForCompletion=True)
    with pytest.raises(ValueError, match="Nothing is left to do"):
        logic.rank(project)
    project.addCase(make_volume((9, 9, 9), name="new"))
    assert logic.rank(project, waitForCompletion=True).done == ("case-0005",)
    assert logic.rank(project, strategy="random", waitForCompletion=True).done == (
        "case-0002", "case-0003", "case-0004", "case-0005")


def test_a_newer_model_predicts_again_and_its_predictions_replace_the_older_ones(logic, project):
    logic.predict(project, waitForCompletion=True)
    old = project.case("case-0002").segmentation
    assert logic.predict(project, "second", waitForCompletion=True).done == ("case-0002", "case-0003", "case-0004")
    assert project.case("case-0002").segmentation != old
    assert len(list((project.path / "cases" / "case-0002").glob("*.seg.nrrd"))) == 2  # project.json's backup has it yet
    assert logic.predict(project, "first", waitForCompletion=True).done == ("case-0002", "case-0003", "case-0004")
    assert len(list((project.path / "cases" / "case-0002").glob("*.seg.nrrd"))) == 2


def test_the_most_useful_case_opens_with_its_prediction_and_is_trained_on_once_corrected(logic, project, plan):
    plan("score=case-0004:0.9")
    logic.predictAndRank(project, waitForCompletion=True)
    volume, segmentation = logic.openNext(project)
    assert volume.GetName() == "CT 2"
    assert slicer.util.arrayFromSegmentBinaryLabelmap(
        segmentation, segmentation.GetSegmentation().GetSegmentIdBySegmentName("left"), volume).sum() == 18
    saved = logic.markCorrected(project, logic.nextCase(project), segmentation, volume)
    assert (saved.id, saved.state, saved.role, saved.isAnnotated) == ("case-0004", "corrected", "training", True)
    assert [one.case.id for one in logic.ranking(project).cases] == ["case-0003", "case-0002"]
    assert logic.ranking(project).stale == ()


def test_a_correction_that_lacks_a_label_is_kept_but_not_trained_on(logic, project):
    logic.predict(project, waitForCompletion=True)
    volume, segmentation = project.openCase("case-0002")
    identity = segmentation.GetSegmentation().GetSegmentIdBySegmentName("right")
    empty = np.zeros((7, 8, 10), np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, segmentation, identity, volume)
    with pytest.raises(ValueError, match="saved, but not complete yet: No voxel of right"):
        logic.markCorrected(project, "case-0002", segmentation, volume)
    assert not project.case("case-0002").isAnnotated
    assert logic.markCorrected(project, "case-0002", segmentation, volume, allowMissing=True).isAnnotated


def test_when_all_is_annotated_nothing_is_left(logic, project):
    project.setRole(["case-0002", "case-0003"], "test")
    project.removeCases("case-0004")
    assert logic.nextCase(project) is None
    for call in (logic.predict, logic.rank, logic.openNext):
        with pytest.raises(ValueError, match="Every case for training is annotated"):
            call(project)


def test_models_that_cannot_be_used_are_explained(logic, project, tmp_path):
    with pytest.raises(ValueError, match="draws liver, and none of it is a label of the project, which has left"):
        logic.predict(project, "liver")
    with pytest.raises(ValueError, match="is for encoder, not for segmentation"):
        logic.predict(project, "encoder")
    with pytest.raises(ValueError, match="strategy must be one of entropy, random"):
        logic.rank(project, strategy="guess")
    with pytest.raises(BadInput, match="nowhere"):
        logic.predict(project, target="nowhere")
    with Project.create(tmp_path / "empty") as empty:
        with pytest.raises(ValueError, match="no model that segments yet"):
            logic.predict(empty)
        with pytest.raises(ValueError, match="no cases"):
            logic.predict(empty, "first")


def test_labels_are_matched_by_name_and_what_is_left_out_is_told(logic, project):
    project.setLabel("left", name="Le ft")
    project.setLabel("right", name="spleen")
    result = logic.predict(project, waitForCompletion=True)
    assert project.case("case-0002").voxels == {"Le ft": 18}
    assert result.notes == ("The model also draws right: no labels of the project, so they are left out.",
                            "The model does not draw spleen; that remains to be drawn by hand.")


def test_a_project_without_labels_takes_those_of_the_model(logic, tmp_path, make_volume, plan):
    with Project.create(tmp_path / "new") as project:
        project.addCase(make_volume())
        logic.predict(project, "first", waitForCompletion=True)
        assert [label.name for label in project.labels] == ["left", "right"]
        assert project.cases[0].voxels == {"left": 18, "right": 18}


def test_one_at_a_time_and_a_project_that_is_closed_ends_it(logic, project, plan):
    plan("pause=0.3")
    job = logic.predict(project)
    with pytest.raises(ValueError, match="already"):
        logic.rank(project)
    project.close()
    with pytest.raises(ValueError, match="was closed"):
        job.wait()


def test_a_damaged_order_is_told_and_made_anew(logic, project):
    logic.predictAndRank(project, waitForCompletion=True)
    file = project.path / "next.json"
    for damaged in ("{", "[]", '{"version": 9}', json.dumps({"version": 1, "ranking": {"model": 1}})):
        file.write_text(damaged)
        with pytest.raises(BadInput, match="Predict and rank again"):
            logic.ranking(project)
    assert len(logic.predictAndRank(project, waitForCompletion=True).done) == 3
    assert len(logic.ranking(project).cases) == 3


def test_nothing_is_left_of_the_computation(logic, project, monkeypatch, tmp_path):
    import MedMAETrainLib.LoopLogic as module

    monkeypatch.setattr(module, "newTemporaryFolder", lambda: made.append(tmp_path / "temporary") or made[-1])
    made = []
    (tmp_path / "temporary").mkdir()
    logic.predict(project, waitForCompletion=True)
    assert made and not made[0].exists()
    shutil.rmtree(project.path)


@pytest.fixture
def work(logic, project):
    from MedMAETrainLib.PredictionWork import PredictionWork
    from MedMAETrainLib.RankingFile import RankingData

    return PredictionWork(project, "first", model_info("first", labels=LABELS), project.cases[1:3], labels=True,
                          ranking=RankingData("first", "1" * 64, "entropy", 0, ""))


def results(out, **of_cases):
    out.mkdir()
    lines = [{"medmae": "", "spec": "x", "options": {}}] + [
        {"case": f"project-{case.replace('_', '-')}", "spec": "x", "images": [], "stamp": [], "files": [],
         "result": result}
        for case, result in of_cases.items()]
    (out / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_results_that_make_no_sense_are_not_taken(work, tmp_path, project):
    before = project.cases
    results(tmp_path / "out", case_0001={"score": 1.0, "output": str(tmp_path / "out" / "a.nrrd")},
            case_0002={"score": float("nan")}, case_0003={"score": "high"}, case_0009={"score": 1})
    work.read(tmp_path / "out")
    (tmp_path / "result.json").write_text('{"failed": [5, {"image": ["x"]}]}')
    work.readFailures(tmp_path / "result.json")
    while not work.poll():
        time.sleep(0.01)
    assert work.result.done == () and {"case-0002", "case-0003"} <= set(dict(work.result.failed))
    assert project.cases == before and not (project.path / "next.json").exists()


@pytest.mark.parametrize("output", ["/etc/passwd", "../../project/cases/case-0001/label-0001.nrrd", 5, "\0"])
def test_results_cannot_name_files_of_others(work, tmp_path, output):
    results(tmp_path / "out", case_0002={"score": 1.0, "output": output})
    with pytest.raises(BadInput, match="none of their files"):
        work.read(tmp_path / "out")


def test_what_only_a_model_has_drawn_is_no_annotation_when_missing_labels_are_accepted(logic, project):
    logic.predict(project, waitForCompletion=True)
    project.setState("case-0002", "unannotated")
    project.acceptMissing([case.id for case in project.cases])
    assert states(project) == ["annotated", "unannotated", "predicted", "predicted"]
