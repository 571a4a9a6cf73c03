"""The panels on a small Qt application: they load, follow the scene, and stay alive while a child computes."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from panel_fixtures import BOX, NEEDS_SOURCE, until

pytestmark = NEEDS_SOURCE


def test_the_first_volume_and_model_are_chosen_and_described(open_panel, make_volume, model):
    volume = make_volume(name="CT of somebody")
    panel = open_panel("MedMAESegment")
    assert panel.ui.inputVolumeSelector.currentNode() is volume
    assert panel.ui.modelSelector.currentText == "Abdomen"
    assert panel.ui.modelDescriptionLabel.text == "left, right\nCT, 3-D, trained on 4 cases"
    assert panel.ui.segmentButton.enabled
    assert panel.ui.segmentationSelector.currentText == "New segmentation"
    assert not panel.ui.editButton.enabled


def test_without_volume_or_model_the_button_says_what_is_missing(open_panel, scene):
    panel = open_panel("MedMAESegment")
    assert not panel.ui.segmentButton.enabled
    assert panel.ui.segmentButton.toolTip == "Choose a volume and a model."
    assert "No models yet" in panel.ui.modelDescriptionLabel.text


def test_pressing_segment_fills_a_segmentation_that_can_be_edited(
        open_panel, qt_application, make_volume, model, work_plan, fake_worker, result_file):
    import slicer

    volume = make_volume()
    work_plan("progress", "work=0.3", f"labels={result_file(volume)}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Cancel"
    until(qt_application, lambda: "Segment " in panel.ui.statusLabel.text)
    assert panel.ui.progressBar.visible
    until(qt_application, lambda: panel.ui.segmentButton.text == "Segment")
    node = panel._parameterNode.segmentation
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "left"
    assert panel.ui.segmentationSelector.currentNode() is node
    assert panel.ui.statusLabel.text.startswith("Done in")
    assert not panel.ui.progressBar.visible
    panel.ui.editButton.click()
    assert qt_application.selectedModule == "SegmentEditor"
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.GetSegmentationNode() is node and editor.GetSourceVolumeNode() is volume
    panel.ui.show3DButton.click()
    surface = node.GetClosedSurfaceInternalRepresentation(node.GetSegmentation().GetNthSegmentID(0))
    assert surface.GetNumberOfPoints() > 0


def test_a_result_that_comes_while_another_module_is_open_is_shown_on_return(
        open_panel, qt_application, make_volume, model, work_plan, fake_worker, result_file):
    volume = make_volume()
    work_plan("work=0.3", f"labels={result_file(volume)}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    panel.exit()
    until(qt_application, lambda: panel._job is None)
    panel.enter()
    assert panel.ui.segmentationSelector.currentNode().GetSegmentation().GetNumberOfSegments() == 2
    assert panel.ui.editButton.enabled


def test_the_event_loop_is_never_held_while_the_child_works(
        open_panel, qt_application, make_volume, model, work_plan, fake_worker, result_file):
    volume = make_volume()
    work_plan("progress", "work=1", "progress", f"labels={result_file(volume)}")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    gaps = []

    def turn():
        begun = time.monotonic()
        qt_application.application.processEvents()
        gaps.append(time.monotonic() - begun)
        return panel.ui.segmentButton.text == "Segment"

    until(qt_application, turn)
    working = sorted(gaps[:-1])  # the last turn takes the result over
    assert len(working) > 50
    assert working[-3] < 0.1, "single longer ones are those of a busy machine"


def test_pressing_cancel_ends_it(open_panel, qt_application, make_volume, model, work_plan, fake_worker):
    make_volume()
    work_plan("work=60")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Segment"
    assert panel.ui.statusLabel.text == "Cancelled."
    assert panel.logic.jobs == []


def test_the_childs_reason_is_shown(open_panel, qt_application, make_volume, model, work_plan, fake_worker):
    make_volume()
    work_plan("fail=The image is sheared. Resample it first.")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    until(qt_application, lambda: panel.ui.segmentButton.text == "Segment")
    assert panel.ui.statusLabel.text == "The image is sheared. Resample it first."
    assert "The image is sheared" in panel.shownError


def test_closing_the_scene_ends_what_is_under_way(open_panel, application, make_volume, model, work_plan, fake_worker):
    make_volume()
    work_plan("work=60")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel.ui.segmentButton.click()
    application.clear()
    assert panel.logic.jobs == []
    assert panel.ui.segmentButton.text == "Segment" and not panel.ui.segmentButton.enabled


def test_choices_are_in_the_scene_and_come_back(open_panel, make_volume, model):
    make_volume(name="one")
    two = make_volume(name="two")
    panel = open_panel("MedMAESegment")
    panel.ui.inputVolumeSelector.setCurrentNode(two)
    panel.ui.deviceSelector.setCurrentIndex(1)
    panel.exit()
    panel.enter()
    assert panel._parameterNode.inputVolume is two
    assert panel._parameterNode.device.value == "cpu"
    assert panel.ui.deviceSelector.currentText == "Processor (CPU)"


def test_the_result_of_the_next_volume_does_not_go_into_the_last_ones(
        open_panel, make_volume, make_segmentation, model):
    one, two = make_volume(name="one"), make_volume(name="two")
    result, own = make_segmentation(one, {"left": BOX}), make_segmentation(two, {"mine": BOX})
    panel = open_panel("MedMAESegment")
    panel._parameterNode.segmentation = result
    panel.ui.inputVolumeSelector.setCurrentNode(two)
    assert panel._parameterNode.segmentation is None
    assert panel.ui.segmentationSelector.currentText == "New segmentation"
    panel.ui.segmentationSelector.setCurrentNode(own)
    panel.ui.deviceSelector.setCurrentIndex(1)
    assert panel._parameterNode.segmentation is own


def test_segments_that_may_have_been_corrected_are_replaced_only_after_asking(
        open_panel, make_volume, make_segmentation, model, work_plan, fake_worker):
    volume = make_volume()
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    panel._parameterNode.segmentation = make_segmentation(volume, {"left": BOX, "mine": BOX})
    panel.ui.segmentButton.click()
    assert "The segments left in" in panel.question
    assert panel.logic.jobs == [] and panel.ui.segmentButton.text == "Segment"


def test_a_label_map_is_not_chosen_as_the_image(open_panel, make_volume, model):
    import slicer

    slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    for name in ("MedMAESegment", "MedMAETrain"):
        panel = open_panel(name)
        assert getattr(panel._parameterNode, "inputVolume" if name == "MedMAESegment" else "currentVolume") is None
    assert not panel.ui.addCaseButton.enabled


def test_a_start_that_fails_leaves_the_panel_as_it_was(open_panel, make_volume, model):
    from MedMAESegmentLib.WorkerSession import WorkerSession

    make_volume()
    panel = open_panel("MedMAESegment")
    panel.logic.worker = WorkerSession(["/no/such/interpreter"])
    with pytest.raises(OSError, match="No such file"):
        panel.onSegmentButton()
    assert not panel.ui.progressBar.visible
    assert panel.ui.statusLabel.text == ""
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.segmentButton.enabled


def test_pressing_again_while_the_volume_is_handed_over_cancels(
        open_panel, make_volume, model, work_plan, fake_worker, monkeypatch):
    import slicer

    make_volume()
    work_plan("work=60")
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    texts = []

    def react():
        texts.append(panel.ui.segmentButton.text)
        if len(texts) == 1:
            panel.ui.segmentButton.click()

    monkeypatch.setattr(slicer.app, "processEvents", react)
    panel.ui.segmentButton.click()
    assert set(texts) == {"Cancel"}
    assert panel.logic.jobs == [] and panel._job is None
    assert panel.ui.segmentButton.text == "Segment"


def test_choices_that_come_with_a_loaded_scene_are_shown(
        open_panel, scene, application, make_volume, make_segmentation, model):
    volume = make_volume(name="in the file")
    segmentation = make_segmentation(volume, {"liver": BOX})
    panel = open_panel("MedMAETrain")
    panel._parameterNode.setCases([(volume, segmentation)])
    panel.ui.modelNameLineEdit.setText("my model")
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    application.clear()
    assert panel.ui.caseTable.rowCount == 0 and not panel.ui.finetuneButton.enabled
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    assert panel.ui.caseTable.item(0, 0).text() == "in the file"
    assert panel.ui.modelNameLineEdit.text == "my model"


def test_names_with_markup_are_shown_as_they_are(open_panel, model):
    import qt

    segment, train = open_panel("MedMAESegment").ui, open_panel("MedMAETrain").ui
    for label in (segment.modelDescriptionLabel, segment.statusLabel, train.statusLabel):
        assert label.textFormat == qt.Qt.PlainText


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_every_bound_widget_has_its_parameter(open_panel, name):
    panel = open_panel(name)
    bound = {widget.property("SlicerParameterName") for widget in vars(panel.ui).values()} - {None}
    assert bound and all(hasattr(panel._parameterNode, parameter) for parameter in bound)


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_the_descriptor_says_what_the_module_is(open_panel, name):
    descriptor = open_panel(name).descriptor
    assert descriptor.title.startswith("MedMAE ")
    assert descriptor.categories == ["Segmentation"]
    assert not descriptor.icon.isNull()


@pytest.mark.parametrize("name", ["MedMAESegment", "MedMAETrain"])
def test_the_modules_own_self_test_passes(open_panel, qt_application, name):
    panel = open_panel(name)
    module = sys.modules[name]
    test = getattr(module, f"{name}Test")()
    test.delayDisplay = lambda *_arguments: None
    test.runTest()
    assert panel.parent is not None


def test_nothing_heavy_was_imported_by_the_panels():
    assert not {"torch", "monai"} & set(sys.modules)
