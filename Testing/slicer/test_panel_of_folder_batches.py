"""The tab "Batch" with the images of a folder: what is found there, how it stands, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import slicer
from batch_panel_fixtures import (  # noqa: F401 - fixtures are found by their names
    check,
    choose_fixture,
    folder_fixture,
    logic_fixture,
    page_fixture,
    picture_fixture,
    plan_fixture,
    run_fixture,
    settle,
    table,
    toolTip,
)
from panel_fixtures import BOX, until


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


@pytest.mark.alone
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
