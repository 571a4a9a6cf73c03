"""The Segment panel before anything is computed: volumes, region, place, options; warnings and consent."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
from panel_fixtures import LABELS, model_info, until

from medmae.errors import BadInput

CLASSES = [{"name": "none", "value": 0}, {"name": "fracture", "value": 1}]


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """The user's targets: one, gpu-box."""
    from medmae.jobs import targets
    from medmae.jobs.target import Target

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    targets.add_target(Target("gpu-box", kind="ssh", host="gpu.example.org"))
    return targets


def warned(panel):
    panel._volumePage._warnings.refresh()
    return panel.ui.warningsLabel.text


def test_the_first_volume_and_model_are_chosen(open_panel, make_volume, model):
    volume = make_volume(name="CT of somebody")
    panel = open_panel("MedMAESegment")
    assert panel.ui.inputVolumeSelector.currentNode() is volume
    assert panel._parameterNode.model == "Abdomen"
    assert panel.ui.segmentButton.enabled
    assert panel.ui.segmentationSelector.currentText == "New segmentation"
    assert panel.ui.roiSelector.currentText == "Whole volume"
    assert not panel.ui.editButton.enabled


def test_without_volume_or_model_the_panel_says_what_is_missing(open_panel, make_volume, installed):
    installed()
    panel = open_panel("MedMAESegment")
    assert not panel.ui.segmentButton.enabled
    assert panel.ui.segmentButton.toolTip == panel.ui.statusLabel.text == "Choose a volume and a model."
    installed(model_info("Abdomen", labels=LABELS))
    panel._modelSection.update()
    assert panel.ui.statusLabel.text == "Choose a volume." and not panel.ui.segmentButton.enabled
    panel.ui.inputVolumeSelector.setCurrentNode(make_volume())
    assert panel.ui.statusLabel.text == "" and panel.ui.segmentButton.enabled
    panel._modelSection.name = "a model of another computer"
    assert panel.ui.statusLabel.text == "Choose a model." and not panel.ui.segmentButton.enabled


def test_each_channel_of_the_model_has_a_selector_of_its_name(open_panel, make_volume, installed, work_plan,
                                                              fake_worker):
    work_plan("work=60")
    t1, t2 = make_volume(name="first"), make_volume(name="second")
    installed(model_info("Brain", labels=LABELS, modality="MR", channels=["T1", "T2"]))
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    (label, selector), (otherLabel, other) = panel._volumePage._channels._rows
    assert (label.text, otherLabel.text) == ("T1:", "T2:")
    assert selector.currentNode() is t1 and other.currentNode() is None
    assert panel.ui.segmentButton.toolTip == panel.ui.statusLabel.text == "Choose a volume for T2."
    other.setCurrentNode(t2)
    assert list(panel._parameterNode.otherVolumes) == [t2]
    panel.ui.segmentButton.click()
    assert len(panel.logic.jobs) == 1


def test_a_model_of_one_channel_has_one_selector_again(open_panel, make_volume, installed):
    make_volume()
    installed(model_info("Brain", labels=LABELS, channels=["T1", "T2", "FLAIR"]), model_info("Liver", labels=LABELS))
    panel = open_panel("MedMAESegment")
    rows = panel._volumePage._channels._rows
    panel._modelSection.name = "Brain"
    assert [label.visible for label, _selector in rows] == [True, True, True]
    panel._modelSection.name = "Liver"
    assert [label.visible for label, _selector in rows] == [True, False, False]
    assert rows[0][0].text == "Volume:" and panel.ui.segmentButton.enabled


def test_channels_are_chosen_in_any_order(open_panel, make_volume, installed, scene):
    volume = make_volume()
    installed(model_info("Brain", labels=LABELS, channels=["T1", "T2", "FLAIR"]))
    panel = open_panel("MedMAESegment")
    panel._volumePage._channels._rows[2][1].setCurrentNode(volume)
    panel.exit()
    panel.enter()
    assert panel._volumePage._channels.volumes == [volume, None, volume]
    assert panel.ui.statusLabel.text == "Choose a volume for T2."
    scene.RemoveNode(volume)
    assert panel._volumePage._channels.volumes == [None, None, None]
    assert not panel.ui.segmentButton.enabled


def test_a_colour_image_is_all_that_a_colour_model_needs(open_panel, scene, installed):
    image = slicer.util.addVolumeFromArray(np.zeros((1, 16, 16, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    installed(model_info("Skin", labels=LABELS, channels=["red", "green", "blue"]))
    panel = open_panel("MedMAESegment")
    assert panel.ui.inputVolumeSelector.currentNode() is image
    assert panel._volumePage._channels.names == [""] and panel.ui.segmentButton.enabled


def test_choices_are_in_the_scene_and_come_back(open_panel, make_volume, model):
    make_volume(name="one")
    two = make_volume(name="two")
    panel = open_panel("MedMAESegment")
    panel.ui.inputVolumeSelector.setCurrentNode(two)
    panel.ui.computeSelector.setCurrentIndex(1)
    panel.exit()
    panel.enter()
    assert panel._parameterNode.inputVolume is two
    assert panel._parameterNode.computeOn == "cpu"
    assert panel.ui.computeSelector.currentText == "Processor (CPU)"


def test_choices_survive_saving_closing_and_reading_the_scene(open_panel, scene, application, make_volume, installed):
    installed(model_info("Abdomen", labels=LABELS), model_info("Brain", labels=LABELS, channels=["T1", "T2"]))
    volumes = [make_volume(name="one"), make_volume(name="two")]
    panel = open_panel("MedMAESegment")
    panel._modelSection.name = "Brain"
    panel.ui.inputVolumeSelector.setCurrentNode(volumes[1])
    panel._volumePage._channels._rows[1][1].setCurrentNode(volumes[0])
    panel.ui.roiSelector.addNode().SetName("upper half")
    panel.ui.computeSelector.setCurrentIndex(2)
    boxes = (panel.ui.mirrorCheckBox, panel.ui.uncertaintyCheckBox, panel.ui.largestComponentCheckBox,
             panel.ui.smoothCheckBox, panel.ui.replaceCheckBox)
    for box in boxes:
        box.click()
    panel.ui.smoothingFactorSpinBox.setValue(0.3)
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    application.clear()
    assert not any(box.checked for box in boxes) and not panel.ui.segmentButton.enabled
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    assert panel.ui.inputVolumeSelector.currentText == "two"
    assert panel._volumePage._channels._rows[1][1].currentText == "one"
    assert panel.ui.roiSelector.currentText == "upper half"
    assert panel._modelSection.name == "Brain"
    assert panel.choices().arguments() == {
        "device": "cuda:0", "mirror": True, "largestComponent": True, "uncertainty": True, "smoothing": 0.3}
    assert panel.ui.replaceCheckBox.checked


def test_a_model_of_the_scene_that_is_not_installed_is_not_replaced_by_another(open_panel, make_volume, installed):
    make_volume()
    installed(model_info("Abdomen", labels=LABELS))
    panel = open_panel("MedMAESegment")
    panel._parameterNode.model = "Liver of a colleague"
    panel.exit()
    panel.enter()
    assert panel._parameterNode.model == "Liver of a colleague"
    assert not panel.ui.segmentButton.enabled


def test_warnings_are_shown_soon_after_the_choice(open_panel, make_volume, installed, qt_application):
    make_volume(name="coarse")
    installed(model_info("Abdomen", labels=LABELS, training={
        "ranges": {"spacing_mm": [[1, 1, 1], [1.5, 1.5, 1.5]], "shape": [[1, 1, 1], [500, 500, 500]]}}))
    panel = open_panel("MedMAESegment")
    until(qt_application, lambda: panel.ui.warningsFrame.visible)
    assert "The spacing of coarse" in panel.ui.warningsLabel.text


def test_a_model_that_is_updated_is_looked_at_again(open_panel, make_volume, installed, qt_application):
    make_volume(name="coarse")
    installed(model_info("Abdomen", labels=LABELS, weights_sha256="0" * 64))
    panel = open_panel("MedMAESegment")
    assert warned(panel) == ""
    installed(model_info("Abdomen", labels=LABELS, weights_sha256="1" * 64, training={
        "ranges": {"spacing_mm": [[1, 1, 1], [1.5, 1.5, 1.5]], "shape": [[1, 1, 1], [500, 500, 500]]}}))
    panel._modelSection.update()
    until(qt_application, lambda: panel.ui.warningsFrame.visible)


def test_a_transform_that_is_moved_is_looked_at_again(open_panel, scene, make_volume, installed):
    installed(model_info("Abdomen", labels=LABELS, training={
        "ranges": {"spacing_mm": [[0.5, 0.5, 0.5], [5, 5, 5]], "shape": [[4, 4, 4], [99, 99, 99]]}}))
    volume, transform = make_volume(), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    panel = open_panel("MedMAESegment")
    assert not warned(panel)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([20.0, 20.0, 20.0, 1.0])))
    assert panel._volumePage._warnings._timer.isActive()
    assert "The spacing of" in warned(panel)


def test_a_volume_that_cannot_be_used_is_told_before_it_is_tried(open_panel, scene, model):
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    assert "The volume nothing is empty." in warned(open_panel("MedMAESegment"))


@pytest.mark.parametrize("width", [380, 420])
def test_long_warnings_are_not_cut_off(open_panel, make_volume, installed, qt_application, width):
    make_volume(name="MR of somebody with a name that is long").SetAttribute("DICOM.Modality", "MR")
    installed(model_info("Abdomen", labels=LABELS, training={
        "ranges": {"spacing_mm": [[8, 8, 8], [9, 9, 9]], "shape": [[50, 50, 50], [60, 60, 60]]}}))
    panel = open_panel("MedMAESegment")
    assert warned(panel).count("\n\n") == 2
    qt_application.show(panel, width, qt_application.heightOf(panel, width))
    label = panel.ui.warningsLabel
    assert label.height >= label.heightForWidth(label.width)
    assert panel.ui.volumePage.width <= width and panel.ui.segmentButton.visible


def test_a_region_that_is_turned_is_warned_about(open_panel, make_volume, model, qt_application):
    make_volume()
    panel = open_panel("MedMAESegment")
    roi = panel.ui.roiSelector.addNode()
    assert warned(panel) == ""
    matrix = slicer.util.arrayFromVTKMatrix(roi.GetObjectToNodeMatrix()).copy()
    matrix[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    until(qt_application, lambda: "is rotated" in panel.ui.warningsLabel.text)
    panel.ui.roiSelector.setCurrentNode(None)
    assert warned(panel) == ""


def test_only_serious_warnings_are_asked_about_and_only_once(open_panel, make_volume, installed, work_plan,
                                                             fake_worker, agree):
    work_plan("work=60")
    volume = make_volume(name="MR of somebody")
    volume.SetAttribute("DICOM.Modality", "MR")
    installed(model_info("Abdomen", labels=LABELS, training={"ranges": {"shape": [[50, 50, 50], [60, 60, 60]]}}))
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    asked = agree(False)
    panel.ui.segmentButton.click()
    assert "modality MR" in asked[0] and "size" not in asked[0] and asked[0].endswith("Go on?")
    assert panel.logic.jobs == []
    asked = agree(True)
    for _press in range(4):  # started, cancelled, started, cancelled
        panel.ui.segmentButton.click()
    assert len(asked) == 1
    assert "modality MR" in panel.ui.warningsLabel.text


def test_the_memory_that_is_needed_is_told_once_the_worker_runs(open_panel, qt_application, make_volume, model,
                                                                work_plan, fake_worker, result_file):
    volume, other = make_volume(), make_volume(name="another")
    work_plan(f"labels={result_file(volume)}", f"free={5 * 10**9}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel._volumePage._warnings._onTimer()
    assert not panel.ui.estimateLabel.visible and not fake_worker.starts
    panel.ui.segmentButton.click()
    until(qt_application, lambda: not panel._volumePage.isBusy)
    panel.ui.inputVolumeSelector.setCurrentNode(other)
    until(qt_application, lambda: panel.ui.estimateLabel.visible)
    assert panel.ui.estimateLabel.text == "Needs about 2.0 GB of memory; 5.0 GB are free."


def test_less_memory_than_is_needed_is_warned_about(open_panel, qt_application, make_volume, installed, work_plan,
                                                    fake_worker, result_file, monkeypatch):
    import medmae.inference.memory

    volume, other = make_volume(), make_volume(name="another")
    installed(model_info("Abdomen", labels=LABELS, weights_sha256="0" * 64))
    work_plan(f"labels={result_file(volume)}", f"free={10**9}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    until(qt_application, lambda: not panel._volumePage.isBusy)
    monkeypatch.setattr(medmae.inference.memory, "available_bytes", lambda: 10**9)
    panel.ui.inputVolumeSelector.setCurrentNode(other)
    until(qt_application, lambda: panel.ui.estimateLabel.visible)
    assert panel.ui.estimateLabel.text == "Needs about 2.0 GB of memory; 1.0 GB are free."
    assert "Segmenting another needs about" in panel.ui.warningsLabel.text
    assert panel._volumePage._warnings.questions()


@pytest.mark.alone
def test_looking_for_warnings_never_holds_the_event_loop(open_panel, scene, installed):
    percentiles = [{"0.5": [-1, 0], "50": [0, 1], "99.5": [1, 2]}]
    installed(model_info("Abdomen", labels=LABELS, training={
        "ranges": {"percentiles": percentiles, "spacing_mm": [[2, 2, 2], [3, 3, 3]], "shape": [[9] * 3, [99] * 3]}}))
    large = np.zeros((200, 512, 512), np.int16) + np.arange(512, dtype=np.int16)
    slicer.util.addVolumeFromArray(large, name="large")
    panel = open_panel("MedMAESegment")
    taken = []
    for _turn in range(4):
        begun = time.monotonic()
        assert "intensities of large" in warned(panel)
        taken.append(time.monotonic() - begun)
    assert sorted(taken)[1] < 0.1, "the others are those of a busy machine"


def test_other_computers_are_offered_and_agreed_to_once_for_each_scene(
        open_panel, application, make_volume, model, targets, agree):
    make_volume()
    panel = open_panel("MedMAESegment")
    assert panel.ui.computeSelector.itemText(3) == "gpu-box (another computer)"
    panel.ui.computeSelector.setCurrentIndex(3)
    assert panel.choices().arguments() == {"device": "auto", "target": "gpu-box"}
    assert "copied to gpu-box" in panel.ui.costsLabel.text
    asked = agree(False)
    panel.ui.segmentButton.click()
    assert "will leave this computer for gpu-box" in asked[0] and panel.logic.jobs == []
    agree(True)
    assert panel._volumePage._mayBegin()
    asked = agree(True)
    assert panel._volumePage._mayBegin() and asked == []
    application.clear()
    make_volume()
    panel.ui.inputVolumeSelector.setCurrentNode(make_volume())
    panel.ui.computeSelector.setCurrentIndex(3)
    assert panel._volumePage._mayBegin() and len(asked) == 1


def test_a_target_that_was_removed_disappears(open_panel, make_volume, model, targets, agree):
    make_volume()
    panel = open_panel("MedMAESegment")
    panel.ui.computeSelector.setCurrentIndex(3)
    targets.remove_target("gpu-box")
    agree(True)
    with pytest.raises(BadInput, match="There is no target gpu-box"):
        panel._volumePage.onSegmentButton()
    panel.exit()
    panel.enter()
    assert panel.ui.computeSelector.count == 3 and panel._parameterNode.computeOn == "auto"
    assert "gpu-box is no longer among the computers" in panel.ui.costsLabel.text


def test_a_damaged_list_of_targets_keeps_nobody_from_computing_here(open_panel, make_volume, model, targets):
    targets.targets_file().write_text("{")
    make_volume()
    panel = open_panel("MedMAESegment")
    assert panel.ui.computeSelector.count == 3 and panel.ui.segmentButton.enabled


def test_the_costs_of_what_is_chosen_are_told(open_panel, make_volume, model):
    make_volume()
    panel = open_panel("MedMAESegment")
    panel.ui.optionsCollapsibleButton.collapsed = False
    assert not panel.ui.costsLabel.visible and not panel.ui.smoothingFactorSpinBox.enabled
    panel.ui.mirrorCheckBox.click()
    panel.ui.smoothCheckBox.click()
    assert panel.ui.costsLabel.text.splitlines()[0] == "Mirroring: about 8 times as long."
    assert panel.ui.costsLabel.visible and panel.ui.smoothingFactorSpinBox.enabled


def test_a_classification_model_shows_classes_and_nothing_about_segments(
        open_panel, qt_application, make_volume, installed, work_plan, fake_worker):
    work_plan("progress")
    volume = make_volume()
    installed(model_info("Fractures", task="classification", labels=CLASSES), model_info("Abdomen", labels=LABELS))
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel._modelSection.name = "Fractures"
    ui = panel.ui
    ui.optionsCollapsibleButton.collapsed = False
    about = (ui.roiSelector, ui.segmentationSelector, ui.editButton, ui.show3DButton, ui.mirrorCheckBox)
    assert ui.segmentButton.text == "Classify" and not any(widget.visible for widget in about)
    ui.segmentButton.click()
    assert ui.segmentButton.text == "Cancel"
    until(qt_application, lambda: not panel._volumePage.isBusy)
    rows = [[ui.resultTable.item(row, column).text() for column in range(3)] for row in range(2)]
    assert rows == [["fracture", "80 %", "k 4"], ["none", "20 %", "k 1"]]
    assert "Not calibrated" in ui.resultTable.horizontalHeaderItem(1).toolTip()
    assert ui.statusLabel.text.startswith("Done in") and ui.statusLabel.text.endswith(": fracture.")
    assert volume.GetAttribute("MedMAE.class") == "fracture"
    panel._modelSection.name = "Abdomen"
    assert ui.segmentButton.text == "Segment" and all(widget.visible for widget in about)


def test_another_patient_is_warned_about_and_questions_are_plain_text(
        open_panel, application, make_volume, model, fake_worker, work_plan, monkeypatch):
    import qt

    work_plan("work=60")
    panel, asked = open_panel("MedMAESegment"), []
    panel.logic.worker = fake_worker
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay",
                        lambda text, textFormat: asked.append((text, textFormat)) or True)
    for _patient in range(2):
        volume = make_volume(name="<b>CT</b>")
        volume.SetAttribute("DICOM.Modality", "MR")
        panel.ui.inputVolumeSelector.setCurrentNode(volume)
        panel.ui.segmentButton.click()
        application.clear()
    assert len(asked) == 2 and asked[0] == asked[1]
    assert asked[0][0].startswith("<b>CT</b> is of the modality MR") and asked[0][1] == qt.Qt.PlainText
