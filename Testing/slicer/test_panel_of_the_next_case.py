"""The tab "Next case": every state, every control."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer
from panel_fixtures import LABELS, model_info, until

ENGINE = [sys.executable, str(Path(__file__).with_name("fake_rank_engine.py"))]
LEFT, RIGHT = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 2:5, 1:4]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Set what the stand-in for the engine does."""
    def write(*actions):
        (tmp_path / "plan").write_text("\n".join(actions))
        monkeypatch.setenv("FAKE_ENGINE", str(tmp_path / "plan"))

    write()
    return write


@pytest.fixture
def two_models(installed):
    installed(model_info("hippocampus 1", labels=LABELS, weights_sha256="1" * 64, training={"cases": 1}),
              model_info("abdomen of somebody with a long name", labels=LABELS, weights_sha256="2" * 64))


@pytest.fixture
def project(tmp_path, make_volume, make_segmentation, plan, two_models, monkeypatch):
    """One annotated case, three others, and a model of a run."""
    from MedMAETrainLib.Project import Project
    from MedMAETrainLib.ProjectCase import ProjectRun

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    project = Project.create(tmp_path / "project", "Brains")
    volume = make_volume()
    project.addCase(volume, make_segmentation(volume, {"left": LEFT, "right": RIGHT}))
    for number in range(3):
        name = "MR of a patient whose series has a long description" if number == 2 else f"MR {number}"
        project.addCase(make_volume((7 + number, 8, 10), name=name))
    project.putRun(ProjectRun("run-1", "segmentation", ("case-0001",), "2026-11-20T10:00:00+00:00",
                              model="hippocampus 1"))
    yield project
    project.close()


@pytest.fixture
def make_page(qt_application, monkeypatch):
    """Open the page with a project, or without."""
    import qt
    from MedMAETrainLib.LoopLogic import LoopLogic
    from MedMAETrainLib.Panel.NextPage import NextPage

    qt_application.completeSlicerApp()
    made = []

    def make(project=None):
        parent = qt.QWidget()
        parent.setLayout(qt.QVBoxLayout())
        logic = LoopLogic()
        logic.engineCommand = ENGINE
        opened = [project]
        page = NextPage(parent, logic, lambda: opened[-1])
        page.parent, page.logic, page.opened, page.heard, page.told = parent, logic, opened, [], []
        page.openCase.connect(lambda *each: page.heard.append(each))
        page.finetuneFrom.connect(page.heard.append)
        monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: page.told.append(text))
        monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
        if project is not None:
            project.changed.connect(page.update)
        parent.resize(420, 640)
        parent.show()
        made.append(page)
        settle(page)
        return page

    def settle(page):
        page._refresh()
        until(qt_application, lambda: not page.curve.isReading)

    make.settle = settle
    yield make
    for page in made:
        page.cleanup()
        page.parent.close()
        page.parent.deleteLater()
    qt_application.processDeletions()


@pytest.fixture
def page(make_page, project):
    return make_page(project)


@pytest.fixture
def run(page, qt_application):
    """Press the button and wait for the end."""
    def press():
        page.ui.nextButton.click()
        until(qt_application, lambda: not page.isBusy)

    return press


@pytest.fixture
def picture(qt_application):
    """Save what a page looks like, at both widths, in the folder that MEDMAE_PICTURES names."""
    def save(page, name):
        if "MEDMAE_PICTURES" not in os.environ:
            return
        for width in (420, 380):
            for _level in range(6):  # one level of the layout learns from the next that its height has changed
                qt_application.application.processEvents()
            page.parent.resize(width, max(520, page.parent.layout().heightForWidth(width)))
            qt_application.application.processEvents()
            qt_application.screenshot(page, Path(os.environ["MEDMAE_PICTURES"]) / f"{name}-{width}.png")

    return save


def rows(page):
    table = page.ui.nextTable
    return [tuple(table.item(row, column).text() for column in range(4)) for row in range(table.rowCount)]


def shown(label):
    return label.text if label.visible else ""


def test_without_a_project_it_says_what_to_do(make_page, picture):
    page = make_page()
    assert shown(page.ui.nextHintLabel) == "Create or open a project first."
    assert not page.ui.nextPageContent.visible
    picture(page, "no-project")


def test_without_a_model_it_explains_how_to_get_one(make_page, project, installed, picture):
    installed()
    page = make_page(project)
    assert "There is no model yet that could draw on the other 3 cases." in shown(page.ui.nextHintLabel)
    assert not page.ui.nextButton.enabled and not page.ui.nextFinetuneButton.enabled
    assert page.ui.nextOpenButton.enabled  # some case may always be annotated
    picture(page, "no-model")


def test_another_model_can_begin(make_page, project, installed):
    installed(model_info("abdomen", labels=LABELS, weights_sha256="2" * 64))
    page = make_page(project)
    assert "no model of its own yet" in shown(page.ui.nextHintLabel)
    assert page.ui.nextButton.enabled


def test_an_empty_project_and_one_with_nothing_left_say_so(make_page, project, tmp_path, picture):
    from MedMAETrainLib.Project import Project

    with Project.create(tmp_path / "empty") as empty:
        assert "no images yet" in shown(make_page(empty).ui.nextHintLabel)
    project.removeCases(["case-0002", "case-0003", "case-0004"])
    page = make_page(project)
    assert "Nothing is left to annotate" in shown(page.ui.nextHintLabel)
    assert not page.ui.nextButton.enabled and not page.ui.nextOpenButton.enabled
    picture(page, "nothing-left")


def test_before_the_first_time(page, picture):
    assert shown(page.ui.nextHintLabel) == shown(page.ui.nextStatusLabel) == shown(page.ui.nextStaleLabel) == ""
    assert page.ui.nextModelComboBox.currentText == "hippocampus 1 (newest)"
    assert page.ui.nextModelComboBox.count == 2
    assert page.ui.nextButton.text == "Predict and rank" and not page.ui.nextTable.visible
    picture(page, "ready")


def test_predicting_and_ranking_shows_how_far_it_is_and_then_the_order(page, run, plan, qt_application, picture):
    plan("pause=0.3", "score=case-0003:0.9", "score=case-0004:0.4", "score=case-0002:0.1", "empty=case-0002")
    page.ui.nextButton.click()
    assert page.ui.nextButton.text == "Cancel" and page.ui.nextProgressBar.visible
    assert not page.ui.nextModelComboBox.enabled
    until(qt_application, lambda: "Case 1 of 3, about" in shown(page.ui.nextStatusLabel))
    assert page.ui.nextProgressBar.value >= 300
    picture(page, "running")
    until(qt_application, lambda: not page.isBusy)
    assert shown(page.ui.nextStatusLabel) == "Done: 3 of 3 cases." and not page.ui.nextProgressBar.visible
    assert rows(page) == [
        ("1", "MR 1", "0.900", "predicted"),
        ("2", "MR of a patient whose series has a long description", "0.400", "predicted"),
        ("3", "MR 0", "0.100", "found nothing")]
    assert shown(page.ui.nextMoreLabel).startswith("Order by hippocampus 1, where the model is unsure, 2")
    picture(page, "ranked")


def test_what_is_cancelled_is_kept_and_goes_on(page, run, plan, project, qt_application, picture):
    plan("pause=0.4")
    page.ui.nextButton.click()
    until(qt_application, lambda: any(case.state == "predicted" for case in project.cases))
    page.ui.nextButton.click()
    assert not page.isBusy and "Cancelled. Done and kept: 1 of 3 cases." in shown(page.ui.nextStatusLabel)
    assert "2 cases are not in the order yet." in shown(page.ui.nextStaleLabel)
    picture(page, "cancelled")
    run()
    assert len(rows(page)) == 3 and shown(page.ui.nextStaleLabel) == ""


def test_failures_are_told_with_their_reasons(page, run, plan, picture):
    plan("bad=case-0003")
    run()
    assert "Done: 2 of 3 cases.\nMR 1 (case-0003) failed: The image is sheared." in shown(page.ui.nextStatusLabel)
    plan("refuse")
    run()
    assert shown(page.ui.nextStatusLabel) == "The weights are damaged. Import the model again."
    picture(page, "failed")


def test_a_newer_model_makes_the_order_stale_and_is_chosen(page, run, project, make_page, picture, installed):
    from MedMAETrainLib.ProjectCase import ProjectRun

    run()
    installed(*(model_info(name, labels=LABELS, weights_sha256=digit * 64) for name, digit in (
        ("hippocampus 1", "1"), ("hippocampus 2", "4"))))
    project.putRun(ProjectRun("run-2", "segmentation", ("case-0001",), "2026-11-21T10:00:00+00:00",
                              model="hippocampus 2"))
    make_page.settle(page)
    assert "There is a newer model, hippocampus 2" in shown(page.ui.nextStaleLabel)
    assert page.ui.nextModelComboBox.currentText == "hippocampus 2 (newest)"
    assert page.ui.nextFinetuneButton.text == "Finetune again from hippocampus 2"
    picture(page, "stale")


def test_cases_are_opened_by_their_place_by_selection_and_by_a_double_click(page, run, plan):
    page.ui.nextOpenButton.click()
    plan("score=case-0004:0.9")
    run()
    page.ui.nextOpenButton.click()
    assert not page.ui.nextOpenSelectedButton.enabled
    page.ui.nextTable.selectRow(1)
    page.ui.nextOpenSelectedButton.click()
    page.ui.nextTable.cellDoubleClicked.emit(2, 0)
    assert page.heard == [("case-0002", "hippocampus 1"), ("case-0004", "hippocampus 1"),
                          ("case-0003", "hippocampus 1"), ("case-0002", "hippocampus 1")]


def edit(segmentation, volume):
    """Choose a segmentation in the Segment Editor."""
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    if editor is None:
        editor = slicer.vtkMRMLSegmentEditorNode()
        editor.SetSingletonTag("SegmentEditor")
        editor = slicer.mrmlScene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(segmentation)
    editor.SetAndObserveSourceVolumeNode(volume)


def test_the_open_case_is_marked_as_corrected_and_leaves_the_order(page, run, project, make_page, picture):
    run()
    assert not page.ui.nextCorrectedButton.enabled
    volume, segmentation = project.openCase("case-0003")
    edit(segmentation, volume)
    make_page.settle(page)
    assert page.ui.nextCorrectedButton.text == "Mark MR 1 as corrected"
    picture(page, "open")
    page.ui.nextCorrectedButton.click()
    case = project.case("case-0003")
    assert (case.state, case.role) == ("corrected", "training")
    assert shown(page.ui.nextStatusLabel) == "MR 1 is saved; training learns from it from now on."
    assert [row[1] for row in rows(page)] == ["MR of a patient whose series has a long description", "MR 0"]
    assert "Annotated since: 1." in page.ui.nextFinetuneButton.toolTip


def test_only_the_case_that_the_button_names_is_marked(page, run, project, make_page):
    run()
    edit(*reversed(project.openCase("case-0003")))
    make_page.settle(page)
    edit(*reversed(project.openCase("case-0002")))  # the page has not heard of it yet
    page.ui.nextCorrectedButton.click()
    assert [project.case(case).state for case in ("case-0002", "case-0003")] == ["predicted", "predicted"]
    assert page.ui.nextCorrectedButton.text == "Mark MR 0 as corrected"
    page.ui.nextCorrectedButton.click()
    assert [project.case(case).state for case in ("case-0002", "case-0003")] == ["corrected", "predicted"]


def test_a_correction_that_is_not_complete_is_explained(page, run, project, make_page):
    run()
    volume, segmentation = project.openCase("case-0002")
    identity = segmentation.GetSegmentation().GetSegmentIdBySegmentName("left")
    empty = np.zeros((7, 8, 10), np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(empty, segmentation, identity, volume)
    edit(segmentation, volume)
    make_page.settle(page)
    page.ui.nextCorrectedButton.click()
    assert "not complete yet: No voxel of left." in page.told[0]


def test_finetuning_again_begins_with_the_newest_model(page):
    page.ui.nextFinetuneButton.click()
    assert page.heard == ["hippocampus 1"]


def test_an_ensemble_cannot_be_finetuned_again_and_says_so(make_page, project, installed):
    info = model_info("hippocampus 1", labels=LABELS, weights_sha256="1" * 64)
    installed(dataclasses.replace(info, architecture={"name": "ensemble", "arguments": {
        "members": 3, "channels": 1, "classes": 3}}))
    button = make_page(project).ui.nextFinetuneButton
    assert not button.enabled and "an ensemble of several models" in button.toolTip


def test_choices_are_kept_in_the_parameters(page):
    from types import SimpleNamespace

    parameters = SimpleNamespace(strategy="random", computeOn="cpu")
    page.setParameters(parameters)
    assert page.ui.nextStrategyComboBox.currentText == "At random" and page.compute.value == "cpu"
    assert "same chance" in page.ui.nextStrategyTextLabel.text
    page.ui.nextStrategyComboBox.setCurrentIndex(0)
    page.compute.value = "auto"
    assert (parameters.strategy, parameters.computeOn) == ("entropy", "auto")
    page.setParameters(None)


def test_nothing_leaves_this_computer_unasked(page, agree, monkeypatch, make_page, project):
    from medmae.jobs import targets
    from medmae.jobs.target import Target

    targets.add_target(Target("gpu-box", kind="ssh", host="gpu.example.org", folder="medmae"))
    page.compute.update()
    page.compute.value = "target:gpu-box"
    asked = agree(False)
    page.ui.nextButton.click()
    assert len(asked) == 1 and "will leave this computer for gpu-box" in asked[0] and not page.isBusy
    started = []
    monkeypatch.setattr(page.logic, "predictAndRank", lambda *_, **options: started.append(options) or page._job)
    monkeypatch.setattr(page, "_follow", lambda job: None)
    agree(True)
    page.ui.nextButton.click()
    assert started == [{"device": "auto", "target": "gpu-box"}]


def test_a_damaged_order_is_told(page, project, make_page):
    (project.path / "next.json").write_text("{")
    make_page.settle(page)
    assert "Predict and rank again" in shown(page.ui.nextStaleLabel)
    page.ui.nextOpenButton.click()
    assert "Predict and rank again" in page.told[0] and page.heard == []


def test_the_advice_and_the_numbers_are_shown_and_drawn(page, project, make_page, monkeypatch, picture):
    from MedMAETrainLib.LearningCurve import CurvePoint, ScoredCase, curveOf

    def point(cases, by, day):
        scored = tuple(ScoredCase(f"v{n}", f"s{n}", "r", {"left": 0.6 + by + 0.01 * n}) for n in range(8))
        return CurvePoint(f"hippocampus {cases}", f"2026-11-{day}T10:00:00", cases, 0.635 + by, "validation",
                          scored=scored)

    points = [point(4, 0, 18), point(8, 0.05, 19), point(16, 0.11, 20)]
    page.curve._read = lambda _project: curveOf(points, ["lost is left out: the model was removed."])
    page.curve.update(project, again=True)
    make_page.settle(page)
    assert page.ui.nextAdviceLabel.text == "More labels are likely to help."
    assert "From 8 to 16 cases" in page.ui.nextReasonLabel.text and "lost is left out" in page.ui.nextReasonLabel.text
    table = page.ui.nextCurveTable
    assert [table.item(0, column).text() for column in range(4)] == ["hippocampus 16", "16", "0.745", "8 validation"]
    page.ui.nextChartButton.click()
    (chart,) = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    (series,) = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    assert chart.GetXAxisTitle() == "Annotated cases" and series.GetName() == "Dice, 8 cases for validation"
    picture(page, "advice")


def test_another_project_shows_nothing_of_the_one_before(page, run, make_page, tmp_path):
    from MedMAETrainLib.Project import Project

    run()
    with Project.create(tmp_path / "other") as other:
        page.opened.append(other)
        make_page.settle(page)
        assert rows(page) == [] and shown(page.ui.nextStatusLabel) == ""
        assert "no images yet" in shown(page.ui.nextHintLabel)
