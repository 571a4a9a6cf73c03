"""The tab "Batch": its cases and how they stand, every control, every state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from conftest import voxels_left
from panel_fixtures import BOX, until

ENGINE = [sys.executable, str(Path(__file__).with_name("fake_batch_engine.py"))]
COLUMNS = ("name", "state", "time")


@pytest.fixture
def logic(qt_application, a_known_model, fake_worker):
    qt_application.completeSlicerApp()
    import MedMAESegment

    logic = MedMAESegment.MedMAESegmentLogic()
    logic.worker, logic.engineCommand = fake_worker, ENGINE
    yield logic
    logic.cancel()


@pytest.fixture
def page(qt_application, logic, monkeypatch, scene):
    """The page alone, with what was said in dialogs in `told`."""
    import qt
    from MedMAESegmentLib.Panel.BatchPage import BatchPage
    from MedMAESegmentLib.Panel.Choices import Choices

    from medmae.models import load_info, resolve_model

    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: told.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: not told.append(text))
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    chosen = [Choices("model", load_info(resolve_model("model")))]
    page = BatchPage(parent, logic, lambda: chosen[-1])
    page.chosen, page.parent, page.told = chosen, parent, told
    parent.resize(420, 560)
    parent.show()
    page.update()
    yield page
    page.cleanup()
    parent.close()
    parent.deleteLater()
    qt_application.processDeletions()


@pytest.fixture
def picture(qt_application, page):
    """Save what the page looks like in the folder that MEDMAE_PICTURES names."""
    def save(name):
        if "MEDMAE_PICTURES" in os.environ:
            qt_application.application.processEvents()
            qt_application.screenshot(page, Path(os.environ["MEDMAE_PICTURES"]) / f"{name}.png")

    return save


@pytest.fixture
def run(page, qt_application):
    """Press the button and wait for the end."""
    def press():
        page.ui.batchButton.click()
        until(qt_application, lambda: not page.isBusy)

    return press


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Set what the stand-in for the engine does with a folder."""
    def write(*actions):
        (tmp_path / "plan").write_text("\n".join(actions))
        monkeypatch.setenv("FAKE_ENGINE", str(tmp_path / "plan"))

    return write


@pytest.fixture
def folder(tmp_path, make_volume):
    """A folder with three images, none of which is in the scene."""
    from MedMAESegmentLib.VolumeExport import writeVolume

    volume = make_volume()
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name in ("a.nrrd", "b.nrrd", "more/c.nrrd"):
        writeVolume(volume, tmp_path / "images" / name)
    slicer.mrmlScene.RemoveNode(volume)
    return tmp_path / "images"


@pytest.fixture
def choose(page, qt_application):
    """Choose a folder, and wait until its images are listed."""
    def choose(folder, output=None):
        page.ui.batchFolderButton.click()
        for edit, path in ((page.ui.batchFolderEdit, folder), (page.ui.batchOutputEdit, output)):
            edit.text = str(path or "")
            edit.editingFinished.emit()
        until(qt_application, lambda: page._lister is None)

    return choose


def table(page, column="state"):
    """The texts of a column; of the states, "state" is the first word and "details" the rest."""
    widget, index = page.ui.batchTable, COLUMNS.index("state" if column == "details" else column)
    texts = [widget.item(row, index).text() for row in range(widget.rowCount)]
    if column in ("state", "details"):
        return [text.partition(": ")[2 if column == "details" else 0] for text in texts]
    return texts


def toolTip(page, row):
    """What the tool tip of a row shows."""
    import qt

    document = qt.QTextDocument()
    document.setHtml(page.ui.batchTable.item(row, 2).toolTip())
    return document.toPlainText()


def check(page, row, isOn):
    import qt

    page.ui.batchTable.item(row, 0).setCheckState(qt.Qt.Checked if isOn else qt.Qt.Unchecked)


def settle(page, qt_application):
    """Wait until the page has looked at the scene again."""
    until(qt_application, lambda: not page._updateTimer.isActive())


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


def test_a_folder_is_segmented_into_files_that_can_be_opened_once(
        page, choose, folder, plan, qt_application, make_volume, make_segmentation, tmp_path, monkeypatch, picture):
    import qt
    from MedMAESegmentLib.SegmentationFile import SegmentationFile

    volume = make_volume()
    node = make_segmentation(volume, {"left": BOX})
    SegmentationFile(tmp_path / "result.seg.nrrd", node, volume).wait()
    slicer.mrmlScene.Clear(0)
    plan("pause=0.8", "bad=b.nrrd", f"result={tmp_path / 'result.seg.nrrd'}")
    choose(folder)
    assert table(page, "name") == ["a.nrrd", "b.nrrd", str(Path("more", "c.nrrd"))]
    assert page.ui.batchOutputEdit.placeholderText == "MedMAE model in that folder"
    assert not page.ui.batchShowFolderButton.enabled
    page.ui.batchButton.click()
    until(qt_application, lambda: "Case 2 of 3, about" in page.ui.batchStatusLabel.text)
    assert table(page)[:2] == ["Done", "Running"] and table(page, "details")[1].endswith("%")
    picture("batch-folder-running")
    until(qt_application, lambda: not page.isBusy)
    assert table(page) == ["Done", "Failed", "Done"]
    assert page.ui.batchStatusLabel.text == "2 done, 1 failed.\nb.nrrd: The image is sheared. Resample it first."
    picture("batch-folder-ended")
    loaded = []
    monkeypatch.setattr(slicer.util, "loadVolume", lambda path, properties: loaded.append(path) or _load(
        path, "vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode"))
    monkeypatch.setattr(slicer.util, "loadSegmentation", lambda path: loaded.append(path) or _load(
        path, "vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"))
    for _ in range(2):
        page.ui.batchTable.cellDoubleClicked.emit(2, 0)
    assert [Path(path).name for path in loaded] == ["c.nrrd", "c.seg.nrrd"]
    editor = page._logic.getSegmentEditorNode()
    assert editor.GetSourceVolumeNode().GetStorageNode().GetFileName() == loaded[0]
    page.ui.batchTable.cellDoubleClicked.emit(1, 0)  # it has failed
    assert len(loaded) == 2
    opened = []
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    page.ui.batchShowFolderButton.click()
    assert opened == [str(folder / "MedMAE model")]


def _load(path, className, storageName):
    node = slicer.mrmlScene.AddNewNodeByClass(className, Path(path).name)
    storage = slicer.mrmlScene.AddNewNodeByClass(storageName)
    storage.SetFileName(path)
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    return node


def test_what_speaks_against_a_folder_is_told_before_anything_begins(page, choose, folder, tmp_path, picture):
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    for chosen, output, told in (
            (None, None, "Choose the folder with the images."),
            (tmp_path / "gone", None, f"There is no folder {tmp_path / 'gone'}. Choose another one."),
            (tmp_path / "nothing", None, "contains no images"),
            (folder, folder, "where the results go"),
            (folder, tmp_path, "where the results go"),
            (folder, tmp_path / "file" / "out", "is a file, so that the folder"),
            (folder, tmp_path / "mine", "is not empty, and what is in it is not of a batch of MedMAE")):
        choose(chosen, output)
        assert told in page.ui.batchHintLabel.text and not page.ui.batchButton.enabled
        assert page.ui.batchButton.toolTip == page.ui.batchHintLabel.text and page.told == []
    picture("batch-folder-refused")
    assert not (tmp_path / "nothing" / "MedMAE model").exists()


def test_results_within_the_folder_are_no_images(page, choose, folder, make_volume):
    from MedMAESegmentLib.VolumeExport import writeVolume

    (folder / "MedMAE other").mkdir()
    writeVolume(make_volume(), folder / "MedMAE other" / "a.uncertainty.nrrd")
    (folder / "MedMAE other" / "manifest.jsonl").write_text("")
    (folder / "out").mkdir()
    (folder / "out" / "manifest.jsonl").write_text(json.dumps({"spec": "", "options": {"mirror": True}}) + "\n")
    writeVolume(make_volume(), folder / "out" / "a.uncertainty.nrrd")
    choose(folder, folder / "out")
    assert table(page, "name") == ["a.nrrd", "b.nrrd", str(Path("more", "c.nrrd"))]
    assert "were made with other choices" in page.ui.batchHintLabel.text and not page.ui.batchButton.enabled
    page.ui.batchAgainCheckBox.click()
    assert page.ui.batchButton.enabled


def test_images_that_came_or_went_meanwhile_are_seen_at_the_start(page, choose, run, folder, plan):
    plan("pause=0")
    choose(folder)
    (folder / "a.nrrd").rename(folder / "z.nrrd")
    run()
    assert table(page, "name") == ["b.nrrd", str(Path("more", "c.nrrd")), "z.nrrd"]
    assert table(page) == ["Done"] * 3 and page.ui.batchStatusLabel.text == "3 done."


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


def test_looking_for_images_can_be_cancelled(page, choose, folder, plan, monkeypatch):
    plan("pause=0")
    choose(folder)
    begun = []
    monkeypatch.setattr("MedMAESegmentLib.BatchLogic.listFolder", lambda *_: time.sleep(0.3) or begun.append(1))
    page.ui.batchButton.click()
    assert page.isBusy and page.ui.batchButton.text == "Cancel"
    page.ui.batchButton.click()
    assert not page.isBusy and table(page) == ["Waiting"] * 3


def test_a_batch_that_cannot_begin_is_told_once(page, choose, run, folder, plan):
    plan("refuse")
    choose(folder)
    run()
    assert table(page) == ["Cancelled"] * 3
    assert page.told == ["The batch has failed.\n\nThe weights are damaged. Import the model again."]


def test_cancelling_a_folder_leaves_no_process_and_no_temporary_folder(
        page, choose, folder, plan, qt_application, application, tmp_path, logic):
    before = application.leftovers()
    plan("pause=20", f"grandchild={tmp_path / 'pid'}")
    choose(folder)
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[0] == "Running" and (tmp_path / "pid").is_file())
    assert application.leftovers() != before
    page.cleanup()  # as when Slicer quits
    assert table(page) == ["Cancelled"] * 3 and application.leftovers() == before and logic.jobs == []
    pid = int((tmp_path / "pid").read_text())
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    assert not state.strip() or state.startswith("Z")


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


def test_choices_are_kept_in_the_scene(page, choose, folder, tmp_path, monkeypatch, logic):
    import qt

    choose(folder, tmp_path / "out")
    parameters = logic.getParameterNode()
    assert (parameters.batchSource, parameters.batchFolder) == ("folder", str(folder))
    assert parameters.batchOutputFolder == str(tmp_path / "out")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "other"))
    page.ui.batchChooseOutputButton.click()
    assert parameters.batchOutputFolder == page.ui.batchOutputEdit.text == str(tmp_path / "other")
    page.ui.batchChooseFolderButton.click()
    assert parameters.batchFolder == page.ui.batchFolderEdit.text == str(tmp_path / "other")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: "")
    page.ui.batchChooseFolderButton.click()
    assert parameters.batchFolder == str(tmp_path / "other")
    parameters.batchSource, parameters.batchFolder = "", "/another/scene"
    page.update()
    assert page.ui.batchVolumesButton.checked and page.ui.batchFolderEdit.text == "/another/scene"


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


def test_what_is_different_for_files_and_elsewhere_is_said(page, choose, run, folder, plan):
    from dataclasses import replace

    plan("pause=0")
    page.chosen.append(replace(page.chosen[0], options={"smoothing": 0.5, "uncertainty": True}))
    choose(folder)
    assert page.ui.batchHintLabel.text == "Files hold voxels, no surfaces: smoothing is left out."
    run()
    assert table(page) == ["Done"] * 3
    page.chosen.append(replace(page.chosen[0], target="gpu-box"))
    choose(folder, folder.parent / "out")
    assert page.ui.batchHintLabel.text == (
        "All images are one job on gpu-box; the results come when it has ended.")


@pytest.mark.parametrize("bad", ["none", "a.nrrd"])
def test_an_engine_that_is_killed_is_told(page, choose, folder, plan, qt_application, application, bad):
    before = application.leftovers()
    plan("pause=1.2", f"bad={bad}")
    choose(folder)
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[1] == "Running")
    os.killpg(page._job._process._process.pid, signal.SIGKILL)
    until(qt_application, lambda: not page.isBusy)
    first = "Done" if bad == "none" else "Failed"
    assert table(page) == [first, "Cancelled", "Cancelled"] and application.leftovers() == before
    assert "ended without saying why" in page.told[0] and "ended without saying why" in page.ui.batchStatusLabel.text


@pytest.mark.parametrize("text", ["~nobody-here/x", "x" * 5000, "/" + "x" * 300 + "/y", "a\0b"])
def test_whatever_is_typed_as_a_folder_is_answered(page, qt_application, folder, choose, text):
    choose(text, text)
    assert page.ui.batchHintLabel.text.startswith("There is no folder") and not page.ui.batchButton.enabled
    choose(folder, text)
    assert table(page) == [] or page.ui.batchButton.enabled
    page.ui.batchVolumesButton.click()
    assert page.ui.batchHintLabel.text == "Load the volumes, or choose a folder."


def test_a_folder_that_was_refused_is_looked_at_again(page, choose, folder):
    moved = folder.with_name("moved")
    choose(moved)
    assert "There is no folder" in page.ui.batchHintLabel.text
    folder.rename(moved)
    choose(moved)
    assert page.ui.batchButton.enabled and table(page) == ["Waiting"] * 3


def test_a_model_that_was_chosen_during_the_batch_has_cases_of_its_own(
        page, choose, folder, plan, qt_application, monkeypatch):
    from dataclasses import replace

    plan("pause=0.2")
    choose(folder)
    page.ui.batchButton.click()
    until(qt_application, lambda: table(page)[0] == "Done")
    other = replace(page.chosen[0].info, name="b", weights_sha256="1" * 64)
    monkeypatch.setattr("medmae.models.load_info", lambda _path: other)
    page.chosen.append(replace(page.chosen[0], info=other))
    page.update()
    until(qt_application, lambda: not page.isBusy)
    settle(page, qt_application)
    until(qt_application, lambda: page._lister is None)
    assert table(page) == ["Waiting"] * 3 and page.ui.batchStatusLabel.text == "3 done."


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


def test_a_long_path_does_not_widen_the_panel(page, choose, folder, plan, run, qt_application):
    (folder / "a.nrrd").rename(folder / f"{'x' * 200}.nrrd")
    plan("pause=0", f"bad={'x' * 200}.nrrd")
    choose(folder)
    run()
    assert "x" * 200 in page.ui.batchStatusLabel.text
    choose(folder / ("x" * 150))
    assert "x" * 150 in page.ui.batchHintLabel.text
    qt_application.application.processEvents()
    assert page.ui.batchTable.parentWidget().minimumSizeHint.width() <= 380


@pytest.mark.parametrize("field", ["batchFolder", "batchOutputFolder"])
def test_a_place_on_another_computer_that_came_with_a_scene_is_not_looked_at_until_the_user_says_so(
        page, logic, folder, qt_application, monkeypatch, field):
    parameters = logic.getParameterNode()
    parameters.batchSource, parameters.batchFolder = "folder", str(folder)
    elsewhere = f"/{folder}"  # another computer to Windows, this folder here
    setattr(parameters, field, elsewhere)
    looked = []
    lister = logic.folderLister
    monkeypatch.setattr(logic, "folderLister",
                        lambda *given, **options: looked.append(given) or lister(*given, **options))
    page.update()
    assert elsewhere in page.ui.batchHintLabel.text and not looked
    assert not page.ui.batchButton.enabled and page.fields.output is None
    getattr(page.ui, f"{field.removesuffix('Folder') if field != 'batchFolder' else field}Edit").editingFinished.emit()
    until(qt_application, lambda: looked and elsewhere not in page.ui.batchHintLabel.text)
