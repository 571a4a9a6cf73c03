"""The tab "Runs": pictures, scores, curves, comparison and log of runs, and how long it holds the application."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
import slicer
from panel_fixtures import until
from run_fixtures import (  # noqa: F401 - fixtures are found by their names
    alive,
    page_fixture,
    project_fixture,
    runs_fixture,
    select,
    settle,
    write_samples,
)


def cases(page):
    table = page.ui.runCasesTable
    return [[table.item(row, column).text() for column in range(2)] for row in range(table.rowCount)]


def test_pictures_show_the_newest_until_an_earlier_one_is_chosen(page, runs, qt_application):
    run = runs.add("liver", "running")
    alive(run)
    select(page, qt_application, "liver")
    assert not page.ui.runPicturesWidget.isVisible()
    write_samples(run, [1, 10])
    settle(page, qt_application)
    assert page.ui.runPictureStepLabel.text == "Step 10"
    captions = [page.ui.runPictureFirstLabel, page.ui.runPictureSecondLabel, page.ui.runPictureThirdLabel]
    assert [label.text for label in captions] == ["Image", "Reference", "Prediction"]
    write_samples(run, [20])
    settle(page, qt_application)
    assert page.ui.runPictureStepLabel.text == "Step 20"
    page.ui.runPictureSlider.setValue(0)
    assert page.ui.runPictureStepLabel.text == "Step 1" and not page.ui.runPictureLabel.pixmap.isNull()
    write_samples(run, [30])
    settle(page, qt_application)
    assert (page.ui.runPictureStepLabel.text, page.ui.runPictureSlider.maximum) == ("Step 1", 3)
    page.ui.runPictureSlider.setValue(3)
    write_samples(run, [40])
    settle(page, qt_application)
    assert page.ui.runPictureStepLabel.text == "Step 40"


def test_pictures_of_pretraining_have_their_own_captions_and_strange_files_are_refused(page, runs, qt_application):
    run = runs.add("encoder", kind="pretrain", score=None)
    write_samples(run, [5])
    (run.samples / "step-000009.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + b"\xff" * 8)
    (run.samples / "step-x.png").write_bytes(b"")
    select(page, qt_application, "encoder")
    assert page.ui.runPictureThirdLabel.text == "Reconstruction"
    assert (page.ui.runPictureStepLabel.text, page.ui.runPictureLabel.text) == (
        "Step 9", "This picture cannot be shown.")
    page.ui.runPictureSlider.setValue(0)
    assert page.ui.runPictureLabel.text == ""


def test_score_and_loss_are_told_in_a_line(page, runs, qt_application):
    runs.add("liver", "done")
    select(page, qt_application, "liver")
    assert page.ui.runScoreLabel.text == "Dice 0.81 at step 40\nLoss 0.309, 1.21 at the beginning"


def test_the_best_score_is_told_beside_the_last(page, runs, qt_application):
    runs.add("liver", "done", steps=60, total=60)
    select(page, qt_application, "liver")
    assert page.ui.runScoreLabel.text.startswith("Dice 0.81 at step 60, best 0.83 at step 40")


def test_cases_of_a_project_are_one_click_away_the_worst_first(page, runs, project, qt_application):
    run = runs.add("liver", project=project.uid)
    (run.path / "validation.json").write_text(json.dumps({"task": "segmentation", "mean_dice": 0.75, "cases": [
        {"image": "case-0001", "dice": {"liver": 0.9, "spleen": None}}, {"image": "gone", "dice": {"liver": None}},
        {"image": "case-0002", "dice": {"liver": 0.5, "spleen": 0.7}}]}))
    select(page, qt_application, "liver")
    assert page.ui.runCasesLabel.text == "Mean Dice 0.750 of 3 cases for validation."
    assert cases(page) == [["CT of <b>1</b>", "0.600"], ["CT of <b>0</b>", "0.900"], ["gone", "none"]]
    tip = page.ui.runCasesTable.item(0, 0).toolTip()
    assert "spleen: 0.700" in tip and "Click to open" in tip and "&lt;b&gt;1" in tip
    page.ui.runCasesTable.cellClicked.emit(0, 1)
    page.ui.runCasesTable.cellClicked.emit(2, 0)  # no longer in the project
    assert page.heard == ["case-0002"]


def test_cases_of_another_project_are_not_opened(page, runs, project, qt_application):
    runs.add("liver", project="another")
    page.ui.runsProjectCheckBox.click()
    select(page, qt_application, "liver")
    assert [case for case, _score in cases(page)] == ["case-0002", "case-0001"]
    assert "Open the project of this run" in page.ui.runCasesTable.item(0, 0).toolTip()
    page.ui.runCasesTable.cellClicked.emit(0, 0)
    assert page.heard == []


def test_a_cross_validation_tells_of_every_case_by_its_id(page, runs, project, qt_application, tmp_path):
    run = runs.add("liver", project=project.uid)
    dataset = run.path / "data" / "dataset.json"
    dataset.parent.mkdir()
    dataset.write_text(json.dumps({"training": [{"id": "case-0001", "image": "/far/one.nrrd"},
                                                {"id": "case-0002", "image": ["images/two.nrrd", "x"]}, "three.nrrd"]}))
    run.spec_file.write_text(json.dumps({**run.spec, "inputs": {"dataset": str(dataset)}}))
    (run.path / "cross_validation.json").write_text(json.dumps({"task": "segmentation", "mean_dice": 0.5, "cases": [
        {"image": "/far/one.nrrd", "dice": {"liver": 0.6}, "fold": 1},
        {"image": "images/two.nrrd", "dice": {"liver": 0.4}, "fold": 2}]}))
    select(page, qt_application, "liver")
    assert page.ui.runCasesLabel.text == (
        "Mean Dice 0.500 of 2 cases; each was scored by a model that has not seen it.")
    assert [case for case, _score in cases(page)] == ["CT of <b>1</b>", "CT of <b>0</b>"]


def test_classified_cases_are_ordered_by_the_probability_of_the_truth(page, runs, qt_application):
    run = runs.add("finding", task="classification", score="validation_auc")
    (run.path / "validation.json").write_text(json.dumps({"task": "classification", "auc": 0.9, "cases": [
        {"image": "one", "label": "ill", "probabilities": {"ill": 0.75, "healthy": 0.25}},
        {"image": "two", "label": "healthy", "probabilities": {"ill": 0.9, "healthy": 0.1}},
        {"image": "three", "label": ["ill"], "probabilities": {"ill": 0.5, "other": 0.5}}]}))
    select(page, qt_application, "finding")
    assert page.ui.runCasesLabel.text == "AUC 0.900 of 3 cases for validation."
    assert cases(page) == [["two", "0.100"], ["three", "0.500"], ["one", "0.750"]]
    assert page.ui.runScoreLabel.text.startswith("AUC 0.81 at step 40")


@pytest.mark.parametrize("content", [
    "", "[]", '{"cases": 3}', '{"cases": [1, {"image": 2}]}', '{"cases": [', "[" * 9999])
def test_scores_that_make_no_sense_are_left_out(page, runs, qt_application, content):
    run = runs.add("liver", score=None)
    (run.path / "validation.json").write_text(content)
    select(page, qt_application, "liver")
    assert not page.ui.runCasesTable.isVisible()


def test_curves_follow_the_selection_once_they_are_shown(page, runs, qt_application):
    first, second = runs.add("first", steps=20), runs.add("second", "running", steps=30)
    alive(second)
    select(page, qt_application, "first")
    assert page.curves.chart.node is None
    page.ui.runCurvesButton.click()
    settle(page, qt_application)
    assert page.curves.chart.node.GetTitle() == "first"
    select(page, qt_application, "second")
    assert page.curves.chart.node.GetTitle() == "second"
    table = page.curves.chart.seriesNodes[0].GetTableNode()
    assert table.GetNumberOfRows() == 30
    runs.train(second, 35, 40, start=30)
    settle(page, qt_application)
    assert table.GetNumberOfRows() == 35
    page.logic.removeRun(first.path.name)
    settle(page, qt_application)
    assert page.curves.chart.node.GetTitle() == "second"


def test_the_chart_is_there_again_after_the_scene_was_closed_and_goes_with_the_module(
        page, runs, qt_application, application, scene):
    runs.add("liver")
    select(page, qt_application, "liver")
    page.ui.runsTable.cellDoubleClicked.emit(0, 0)
    settle(page, qt_application)
    view = scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    application.clear()
    view = scene.AddNewNodeByClass("vtkMRMLPlotViewNode")
    settle(page, qt_application)
    assert page.curves.chart.node is not None and view.GetPlotChartNodeID() == page.curves.chart.node.GetID()
    before = scene.GetNumberOfNodes()
    page.curves.cleanup()
    assert scene.GetNumberOfNodes() < before and page.curves.chart.node is None


def test_the_chart_goes_when_its_run_is_removed(page, runs, qt_application):
    run = runs.add("liver")
    select(page, qt_application, "liver")
    page.ui.runCurvesButton.click()
    page.logic.removeRun(run.path.name)
    settle(page, qt_application)
    assert page.curves.chart.node is None


def test_two_runs_are_compared_in_one_chart_and_a_table_of_what_differs(page, runs, qt_application):
    same = {"method": "gl-mae", "preset": "tiny"}
    runs.add("liver", config={**same, "steps": 40, "augmentation": {"flips": True}})
    runs.add("liver", config={**same, "steps": 60, "augmentation": {"flips": False}}, steps=60, total=60)
    runs.add("other", "running", steps=0)
    settle(page, qt_application)
    page.ui.runsTable.selectRow(2)
    assert not page.ui.runCompareButton.enabled
    page.onCompare()  # one is not compared with itself
    assert page.comparison is None
    select(page, qt_application, "liver")
    assert page.ui.runNameLabel.text == "2 runs are selected" and page.ui.runCompareButton.enabled
    page.ui.runCompareButton.click()
    table = page.comparison.table
    told = {table.verticalHeaderItem(row).text(): [table.item(row, column).text() for column in range(2)]
            for row in range(table.rowCount)}
    assert told["steps"] == ["60", "40"] and told["augmentation.flips"] == ["no", "yes"]
    assert "method" not in told and told["Time"] == ["30 s", "20 s"]
    assert told["While training"][0].startswith("Dice 0.81 at step 60, best 0.83 at step 40")
    assert told["Result"] == ["Mean Dice 0.810 of 2 cases for validation."] * 2
    titles = [table.horizontalHeaderItem(column).text() for column in range(2)]
    assert all(title.startswith("liver (") for title in titles) and len(set(titles)) == 2
    assert [series.GetName() for series in page.curves.chart.seriesNodes] == [
        f"{title}: {name}" for title in titles for name in ("loss", "Dice")]
    page.comparison.closeButton.click()
    assert not page.comparison.dialog.isVisible()


def test_many_selected_runs_are_neither_read_nor_drawn_before_it_is_asked_for(page, runs, qt_application):
    names = [f"run {number}" for number in range(12)]
    for name in names:
        runs.add(name, steps=20)
    select(page, qt_application, "run 0")
    page.ui.runCurvesButton.click()
    select(page, qt_application, *names)
    assert page.curves.chart.node.GetTitle() in names and not page._readTimer.isActive()
    page.ui.runCompareButton.click()
    settle(page, qt_application)
    assert page.curves.chart.node.GetTitle() == "12 runs" and len(page.curves.chart.seriesNodes) == 24
    assert page.comparison.table.columnCount == 12


def test_the_log_is_followed_and_never_read_as_html(page, runs, qt_application, monkeypatch):
    import qt

    monkeypatch.setattr(slicer.app, "clipboard", qt.QApplication.clipboard, raising=False)
    run = runs.add("liver", "running", log="begins <b>here</b>\nhalf a l")
    alive(run)
    select(page, qt_application, "liver")
    page.ui.runLogButton.click()
    (log,) = page.actions.logs
    assert log.dialog.isVisible() and log.dialog.windowTitle == "Log of liver"
    assert log.text.toPlainText() == "begins <b>here</b>"
    with open(run.log_file, "a") as file:
        file.write("ine\n" + "\n".join(f"step {step}" for step in range(200)) + "\n")
    log.update()
    qt_application.application.processEvents()
    assert log.text.toPlainText().splitlines()[1:3] == ["half a line", "step 0"]
    bar = log.text.verticalScrollBar()
    assert bar.value == bar.maximum > 0
    bar.setValue(3)
    with open(run.log_file, "a") as file:
        file.write("more\n")
    log.update()
    assert bar.value == 3 and log.text.toPlainText().endswith("step 199\nmore")
    log.copyButton.click()
    assert qt.QApplication.clipboard().text() == run.log_file.read_text()
    page.logic.stopRun(run.path.name)
    run.write_state(state="stopped")
    until(qt_application, lambda: page.logic.job(run.path.name) is None)
    page.logic.removeRun(run.path.name)
    log.update()
    assert "There is no run" in log.text.toPlainText()
    log.closeButton.click()
    assert not log.dialog.isVisible()


@pytest.mark.alone
def test_fifty_runs_and_a_long_history_never_hold_the_application(page, runs, qt_application):
    run = runs.add("long", "running", steps=0, score=None)
    alive(run)
    lines = (json.dumps({"step": step, "total": 100_000, "seconds": step * 0.1, "eta_s": 1.0, "lr": 1e-4,
                         "loss": 1000 / (1000 + step)}) for step in range(1, 100_001))
    run.progress_file.write_text("\n".join(lines) + "\n")
    others = [runs.add(f"run {number}", "running", steps=3, total=300, score=None) for number in range(49)]
    turns = []

    def measured(work):
        begun = time.process_time()  # what else the machine is busy with does not count
        work()
        turns.append(time.process_time() - begun)

    measured(lambda: page.show(run.path.name))
    while not page.table.selection:
        measured(qt_application.application.processEvents)
    measured(page.onCurves)
    for step in range(4, 8):
        while page._readTimer.isActive() or page.table._timer.isActive():
            measured(qt_application.application.processEvents)
        for other in others:
            alive(other)
            runs.train(other, step, 300, score=None, start=step - 1)
        measured(page.update)
    assert len(page.table.entries) == 50 and len(turns) > 10
    assert page.curves.chart.seriesNodes[0].GetTableNode().GetNumberOfRows() <= 1504
    assert max(turns) < 0.1


def test_the_page_looks_by_itself_while_it_is_seen(page, runs, qt_application):
    settle(page, qt_application)
    runs.add("liver")
    until(qt_application, lambda: page.table.entries, seconds=5)
    page.parent.hide()
    runs.add("spleen")
    time.sleep(1.2)
    qt_application.application.processEvents()
    assert len(page.table.entries) == 1


@pytest.mark.slow
def test_a_run_of_the_real_engine_is_shown_with_its_curves_pictures_and_cases(
        page, project, qt_application, make_volume, make_segmentation):
    page.logic.engineCommand = [sys.executable, "-m", "medmae.run"]
    for number in range(2):
        volume = make_volume((12 + number, 16, 16), name=f"MR {number}")
        project.addCase(volume, make_segmentation(volume, {"liver": np.s_[3:9, 4:12, 4:12]}))
    project.setRole("case-0004", "validation")
    job = page.logic.finetune(project, name="liver", method="vis-mae", preset="tiny", modality="MR", steps=4,
                              device="cpu", settings={"batch_size": 1, "validations": 2})
    page.show(job)
    until(qt_application, lambda: job.ended, seconds=120)
    assert job.error is None
    settle(page, qt_application)
    page.ui.runCurvesButton.click()
    assert page.ui.runsTable.item(0, 1).text() == "Done"
    assert page.ui.runScoreLabel.text.startswith("Dice 0.") and "at step 4" in page.ui.runScoreLabel.text
    assert page.ui.runPicturesWidget.isVisible() and page.ui.runPictureStepLabel.text == "Step 4"
    assert not page.ui.runPictureLabel.pixmap.isNull()
    assert [case for case, _score in cases(page)] == [project.case("case-0004").source.name]
    assert page.ui.runCasesLabel.text.endswith("of one case for validation.")
    assert [series.GetName() for series in page.curves.chart.seriesNodes][-1] == "Dice of the validation cases"
    assert page.ui.runUseButton.isVisible() and page.ui.runReportButton.enabled
    assert "validation at step 4" in page.logic.logText(job.id)
