"""The panel of MedMAETrain: its case table, starting, following and stopping runs."""

from __future__ import annotations

import pytest
from panel_fixtures import BOX, FAKE_ENGINE, NEEDS_SOURCE, until

pytestmark = NEEDS_SOURCE


def test_cases_are_added_shown_and_removed(open_panel, qt_application, make_volume, make_segmentation, model):
    one, two = make_volume(name="one"), make_volume(name="two")
    segmentations = [make_segmentation(volume, {"liver": BOX}) for volume in (one, two)]
    panel = open_panel("MedMAETrain")
    assert not panel.ui.finetuneButton.enabled
    panel.ui.addCaseButton.click()
    panel.ui.addCaseButton.click()
    panel.ui.volumeSelector.setCurrentNode(two)
    panel.ui.segmentationSelector.setCurrentNode(segmentations[1])
    panel.ui.addCaseButton.click()
    table = panel.ui.caseTable
    assert [[table.item(row, column).text() for column in (0, 2)] for row in range(table.rowCount)] == [
        ["one", "liver"], ["two", "liver"]]
    assert panel.ui.finetuneButton.enabled
    table.selectRow(0)
    panel.ui.removeCaseButton.click()
    assert panel._parameterNode.cases() == [(two, segmentations[1])]


def test_an_installed_encoder_is_the_default_start(open_panel, model):
    panel = open_panel("MedMAETrain")
    assert panel.ui.encoderSelector.currentText == "CT encoder (CT, 3-D)"
    assert not panel.ui.networkSelector.enabled
    panel.ui.encoderSelector.setCurrentIndex(0)
    assert panel._parameterNode.encoder == "none"
    assert panel.ui.networkSelector.enabled


def test_finetune_starts_follows_and_stops_a_run(
        open_panel, qt_application, make_volume, make_segmentation, model, engine):
    from medmae.home import runs_folder
    from medmae.run_folder import RunFolder

    volume = make_volume()
    make_segmentation(volume, {"liver": BOX})
    engine("progress", "work=60")
    panel = open_panel("MedMAETrain")
    panel.logic.engineCommand = FAKE_ENGINE
    panel.ui.addCaseButton.click()
    panel.ui.encoderSelector.setCurrentIndex(0)
    panel.ui.networkSelector.setCurrentIndex(1)
    panel.ui.stepsSpinBox.setValue(7)
    panel.ui.finetuneButton.click()
    assert panel.ui.finetuneButton.text == "Stop"
    until(qt_application, lambda: "Windows 3 of 3" in panel.ui.statusLabel.text)
    run = RunFolder.open(next(runs_folder().iterdir()))
    assert run.spec["config"] == {"method": "gl-mae", "preset": "tiny", "steps": 7, "device": "auto"}
    panel.ui.finetuneButton.click()
    until(qt_application, lambda: panel.ui.finetuneButton.text == "Finetune")
    assert panel.ui.statusLabel.text.startswith("Stopped.")


def test_unusable_cases_are_explained_and_nothing_starts(
        open_panel, make_volume, make_segmentation, model, engine):
    volume = make_volume()
    make_segmentation(volume, {"liver": None})
    engine()
    panel = open_panel("MedMAETrain")
    panel.logic.engineCommand = FAKE_ENGINE
    panel.ui.addCaseButton.click()
    with pytest.raises(ValueError, match="the segment liver is empty"):  # shown by tryWithErrorDisplay, then raised
        panel.onFinetuneButton()
    assert panel.ui.finetuneButton.text == "Finetune"


def test_pressing_again_while_cases_are_handed_over_starts_no_training(
        open_panel, make_volume, make_segmentation, model, engine, monkeypatch):
    import slicer

    from medmae.home import runs_folder

    volume = make_volume()
    make_segmentation(volume, {"liver": BOX})
    engine("work=60")
    panel = open_panel("MedMAETrain")
    panel.logic.engineCommand = FAKE_ENGINE
    panel.ui.addCaseButton.click()
    panel.ui.encoderSelector.setCurrentIndex(0)
    monkeypatch.setattr(slicer.app, "processEvents", panel.ui.finetuneButton.click)
    panel.ui.finetuneButton.click()
    assert panel.logic.jobs == [] and list(runs_folder().iterdir()) == []
    assert panel.ui.finetuneButton.text == "Finetune" and not panel.ui.progressBar.visible


def test_a_case_whose_volume_or_segmentation_is_removed_leaves_the_table(
        open_panel, scene, make_volume, make_segmentation, model):
    volumes = [make_volume(name=name) for name in "ABC"]
    cases = [(volume, make_segmentation(volume, {"liver": BOX})) for volume in volumes]
    panel = open_panel("MedMAETrain")
    panel._parameterNode.setCases(cases)
    table = panel.ui.caseTable
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["A", "B", "C"]
    scene.RemoveNode(volumes[0])
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["B", "C"]
    scene.RemoveNode(cases[2][1])
    assert panel._parameterNode.cases() == [cases[1]]
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == ["B"]


def test_of_two_runs_under_way_the_newest_is_shown_and_then_the_other(
        open_panel, qt_application, make_volume, make_segmentation, model, engine):
    from MedMAETrainLib.TrainLogic import TrainLogic

    volume = make_volume()
    case = (volume, make_segmentation(volume, {"liver": BOX}))
    engine("work=60")
    earlier = TrainLogic()  # of a Slicer that was closed
    earlier.engineCommand = FAKE_ENGINE
    jobs = [earlier.finetune([case], name=name) for name in ("first", "second")]
    for job in jobs:
        job.stopFollowing()
        until(qt_application, lambda job=job: job.run.state()["state"] == "running")
    panel = open_panel("MedMAETrain")
    assert len(panel.logic.jobs) == 2 and panel._job.modelName == "second"
    panel.ui.finetuneButton.click()
    until(qt_application, lambda: panel._job.modelName == "first")
    assert panel.ui.finetuneButton.text == "Stop"
    for job in jobs:
        job._process.killTree()
    until(qt_application, lambda: panel._job is None)
    assert panel.ui.finetuneButton.text == "Finetune"
