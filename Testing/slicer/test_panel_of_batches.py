"""The tab "Batch" with the volumes of the scene: its cases and how they stand, every control, every state."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from batch_panel_fixtures import (  # noqa: F401 - fixtures are found by their names
    check,
    logic_fixture,
    page_fixture,
    picture_fixture,
    run_fixture,
    settle,
    table,
    toolTip,
)
from conftest import voxels_left
from panel_fixtures import BOX, until


def test_without_volumes_it_says_what_to_do(page, picture):
    assert table(page) == [] and not page.ui.batchButton.enabled
    assert page.ui.batchHintLabel.text == page.ui.batchButton.toolTip == "Load the volumes, or choose a folder."
    assert not page.ui.batchFolderEdit.visible and page.ui.batchOutputEdit.placeholderText == "Only in the scene"
    picture("batch-empty")


def test_images_are_listed_and_results_label_maps_and_hidden_volumes_are_not(
        page, qt_application, make_volume, scene):
    make_volume(name="CT")
    make_volume(name="result").SetAttribute("MedMAE.content", "uncertainty")
    make_volume(name="hidden").SetHideFromEditors(True)
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    colour = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(colour, np.zeros((1, 4, 5, 3), np.uint8))
    settle(page, qt_application)
    assert table(page, "name") == ["CT", "photo"] and table(page) == ["Waiting", "Waiting"]
    assert page.ui.batchButton.enabled and page.ui.batchButton.text == "Segment all"


def test_all_volumes_are_segmented_and_the_end_is_told(
        page, run, qt_application, make_volume, work_plan, labels_file, picture):
    volumes = [make_volume(name=f"CT {number}") for number in range(4)]
    slicer.util.updateVolumeFromArray(volumes[3], np.zeros((2, 2, 2), np.int16))  # the labels do not fit this one
    work_plan("progress", f"labels={labels_file(volumes[0], [BOX])}")
    settle(page, qt_application)
    check(page, 2, False)
    assert page.ui.batchButton.text == "Segment 3 of 4"
    picture("batch-ready")
    busy = []
    page.busyChanged.connect(lambda: busy.append(page.isBusy))
    page.ui.batchButton.click()
    assert page.ui.batchButton.text == "Cancel" and not page.ui.batchFolderButton.enabled
    until(qt_application, lambda: "Case 2 of 3, about" in page.ui.batchStatusLabel.text)
    assert table(page) == ["Done", "Running", "Waiting", "Waiting"] and page.ui.batchProgressBar.visible
    picture("batch-running")
    until(qt_application, lambda: not page.isBusy)
    assert table(page) == ["Done", "Done", "Waiting", "Failed"] and busy == [True, False]
    assert page.ui.batchStatusLabel.text.startswith("2 done, 1 failed.\nCT 3: ")
    assert table(page, "time")[0].endswith(" s")
    assert toolTip(page, 3).startswith("CT 3\nFailed: ")
    assert page.told == [] and not page.ui.batchProgressBar.visible
    picture("batch-ended")


def test_what_is_done_is_not_done_again_unless_asked_for(
        page, run, qt_application, make_volume, work_plan, labels_file, logic, picture):
    volumes = [make_volume(name=name) for name in ("one", "two")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")
    logic.segment(volumes[0], "model")
    settle(page, qt_application)
    assert table(page) == ["Done before", "Waiting"] and page.ui.batchButton.text == "Segment 1 of 2"
    run()
    assert table(page) == ["Done before", "Done"]
    assert page.ui.batchStatusLabel.text == "1 done, 1 done before."
    settle(page, qt_application)
    assert not page.ui.batchButton.enabled and page.ui.batchButton.toolTip == "All are done."
    picture("batch-all-done")
    page.ui.batchAgainCheckBox.click()
    assert page.ui.batchButton.enabled and page.ui.batchButton.text == "Segment all"
    run()
    assert page.ui.batchStatusLabel.text == "2 done."
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 4


def test_cancelling_keeps_what_is_done_and_the_rest_is_done_another_time(
        page, run, qt_application, make_volume, work_plan, labels_file, logic):
    volumes = [make_volume(name=name) for name in ("one", "two", "three")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}", "work=0.3")
    settle(page, qt_application)
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[1] == "Running")
    page.ui.batchButton.click()
    assert not page.isBusy and table(page) == ["Done", "Cancelled", "Cancelled"]
    assert page.ui.batchStatusLabel.text == "Cancelled: 1 done, 2 not done."
    assert logic.jobs == [] and voxels_left(logic) == []
    settle(page, qt_application)
    assert table(page) == ["Done", "Cancelled", "Cancelled"]
    run()
    assert table(page) == ["Done before", "Done", "Done"]


def test_a_reason_stays_until_the_case_is_done(page, run, qt_application, make_volume, work_plan, labels_file):
    volume = make_volume(name="one")
    work_plan("fail=The volume is sheared. Resample it first.")
    settle(page, qt_application)
    run()
    assert table(page) == ["Failed"] and "sheared" in table(page, "details")[0]
    make_volume(name="two")
    settle(page, qt_application)
    assert table(page) == ["Failed", "Waiting"] and "sheared" in page.ui.batchTable.item(0, 1).toolTip()
    work_plan(f"labels={labels_file(volume, [BOX])}")
    run()
    assert table(page) == ["Done", "Done"]


def test_a_result_is_shown_over_its_volume_alone(page, run, qt_application, make_volume, work_plan, labels_file, scene):
    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    volumes = [make_volume(name=name) for name in ("one", "two")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")
    settle(page, qt_application)
    assert not page.ui.batchOpenButton.enabled
    run()
    nodes = [case.result for case in page._cases]
    page.ui.batchTable.selectRow(1)
    assert page.ui.batchOpenButton.enabled
    page.ui.batchOpenButton.click()
    assert composite.GetBackgroundVolumeID() == volumes[1].GetID()
    assert [node.GetDisplayNode().GetVisibility() for node in nodes] == [0, 1]
    page.ui.batchTable.cellDoubleClicked.emit(0, 2)
    assert composite.GetBackgroundVolumeID() == volumes[0].GetID()
    assert [node.GetDisplayNode().GetVisibility() for node in nodes] == [1, 0]
    assert page._logic.getSegmentEditorNode().GetSegmentationNode() is nodes[0]


@pytest.mark.alone
def test_thousands_of_files_are_found_and_listed_without_holding_the_event_loop(
        page, qt_application, tmp_path):
    for number in range(4000):
        (tmp_path / "images" / f"{number // 500}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / f"{number // 500}" / f"{number}.png").write_bytes(b"")
    page.ui.batchFolderButton.click()
    page.ui.batchFolderEdit.text = str(tmp_path / "images")
    page.ui.batchFolderEdit.editingFinished.emit()
    gaps = []

    def turn():
        begun = time.monotonic()
        qt_application.application.processEvents()
        gaps.append(time.monotonic() - begun)
        return page.ui.batchTable.item(3999, 0) is not None

    assert page.ui.batchHintLabel.text == "Looking for images..."
    until(qt_application, turn, seconds=60)
    assert sorted(gaps)[-3] < 0.1, "single longer ones are those of a busy machine"
    assert page.ui.batchTable.rowCount == 4000 and page.ui.batchButton.enabled


def test_models_that_cannot_segment_a_batch_are_explained(page, make_volume, qt_application):
    from dataclasses import replace

    make_volume(name="CT")
    settle(page, qt_application)
    known = vars(page.chosen[0].info)
    classifier = SimpleNamespace(**known | {"task": "classification"})
    two = SimpleNamespace(**known | {"channels": [{"name": "T1"}, {"name": "T2"}], "image_channels": 2})
    for chosen, told in ((None, "Choose a model."), (classifier, "tells the class of an image"),
                         (two, "is 2 images (T1, T2)")):
        page.chosen.append(replace(page.chosen[0], info=chosen))
        page.update()
        assert told in page.ui.batchHintLabel.text and not page.ui.batchButton.enabled
    page.chosen.append(page.chosen[0])
    page.update()
    assert page.ui.batchButton.enabled and not page.ui.batchHintLabel.visible


def test_closing_the_scene_ends_a_batch_and_empties_the_table(
        page, qt_application, application, make_volume, work_plan, logic):
    make_volume(name="one")
    work_plan("work=60")
    settle(page, qt_application)
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page) == ["Running"])
    page.cancel()  # as the panel does when the scene begins to close
    application.clear()
    settle(page, qt_application)
    assert not page.isBusy and table(page) == [] and logic.jobs == [] and voxels_left(logic) == []


def test_a_volume_that_was_removed_fails_alone(page, qt_application, make_volume, work_plan, labels_file, scene, run):
    volumes = [make_volume(name=name) for name in ("one", "two", "three")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}", "work=0.3")
    settle(page, qt_application)
    page.ui.batchButton.click()
    scene.RemoveNode(volumes[1])
    until(qt_application, lambda: not page.isBusy)
    assert table(page) == ["Done", "Failed", "Done"]
    assert "two was removed from the scene" in page.ui.batchStatusLabel.text
    settle(page, qt_application)
    assert table(page, "name") == ["one", "three"]


def test_a_volume_is_segmented_beside_the_batch(page, qt_application, make_volume, work_plan, labels_file, logic):
    volumes = [make_volume(name=name) for name in ("one", "two")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}", "work=0.2")
    settle(page, qt_application)
    page.ui.batchButton.click()
    single = logic.segment(volumes[0], "model", waitForCompletion=False)
    until(qt_application, lambda: not page.isBusy and single.ended)
    assert table(page) == ["Done", "Done"] and single.error is None
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 3


def test_volumes_leave_this_computer_only_after_a_yes(page, make_volume, qt_application, monkeypatch, logic):
    from dataclasses import replace

    make_volume(name="CT")
    settle(page, qt_application)
    page.chosen.append(replace(page.chosen[0], target="gpu-box"))
    page.update()
    assert page.ui.batchHintLabel.text == "Each volume is a job of its own on gpu-box, one after the other."
    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: bool(asked.append(text)))
    page.ui.batchButton.click()
    assert "will leave this computer for gpu-box" in asked[0] and not page.isBusy and logic.jobs == []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: True)
    page.ui.batchButton.click()
    until(qt_application, lambda: not page.isBusy)
    assert "There is no target gpu-box" in toolTip(page, 0)


def test_results_that_are_in_the_scene_only_can_be_saved_afterwards(
        page, run, qt_application, make_volume, work_plan, labels_file, tmp_path, logic):
    volume = make_volume(name="one")
    work_plan(f"labels={labels_file(volume, [BOX])}")
    logic.segment(volume, "model")
    settle(page, qt_application)
    assert table(page) == ["Done before"] and not page.ui.batchButton.enabled
    page.ui.batchOutputEdit.text = str(tmp_path / "out")
    page.ui.batchOutputEdit.editingFinished.emit()
    assert table(page, "details") == ["segmented, not saved yet"] and page.ui.batchButton.enabled
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file, so that the folder"):  # shown by Slicer, raised in its tests
        page.onButton()
    assert not page.isBusy
    (tmp_path / "out").unlink()
    run()
    assert (tmp_path / "out" / "one.seg.nrrd").is_file() and table(page) == ["Done before"]
    settle(page, qt_application)
    assert not page.ui.batchButton.enabled and page.ui.batchShowFolderButton.enabled


def test_in_the_whole_panel_a_batch_goes_on_while_another_module_is_open(
        open_panel, qt_application, make_volume, model, work_plan, labels_file, fake_worker, application):
    volumes = [make_volume(name=name) for name in ("one", "two")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}", "work=0.3")
    panel = open_panel("MedMAESegment")
    panel.logic.worker, page = fake_worker, panel._batchPage
    panel.ui.pages.setCurrentIndex(1)
    settle(page, qt_application)
    assert page.ui.batchButton.enabled, page.ui.batchHintLabel.text
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[1] == "Running")
    panel.exit()
    until(qt_application, lambda: not page.isBusy)
    panel.enter()
    assert table(page) == ["Done", "Done"] and page.ui.batchStatusLabel.text == "2 done."
    page.ui.batchAgainCheckBox.click()
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[0] == "Running")
    application.clear()
    assert not page.isBusy and panel.logic.jobs == []
    settle(page, qt_application)
    assert table(page) == [] and panel._parameterNode.batchSource == ""


def test_names_of_strangers_are_shown_as_they_are(page, make_volume, qt_application):
    make_volume(name="<b>bold</b><img src='/etc/passwd'>")
    settle(page, qt_application)
    assert toolTip(page, 0).startswith("<b>bold</b><img src='/etc/passwd'>\n")


def test_a_name_too_long_for_a_file_is_cut(page, run, make_volume, qt_application, work_plan, labels_file, tmp_path):
    volumes = [make_volume(name="\u809d" * 100) for _ in range(2)]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")
    page.ui.batchOutputEdit.text = str(tmp_path / "out")
    page.ui.batchOutputEdit.editingFinished.emit()
    settle(page, qt_application)
    run()
    assert table(page) == ["Done"] * 2 and len(list((tmp_path / "out").iterdir())) == 2
