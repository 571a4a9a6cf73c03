"""The tab "Volume" of the Segment panel: started, followed, cancelled, and what is shown at the end."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
from panel_fixtures import BOX, until


@pytest.fixture
def panel(open_panel, make_volume, model, fake_worker):
    """The panel with one volume, "CT of somebody", and a worker that does what `work_plan` says."""
    make_volume()
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    return panel


@pytest.fixture
def volume(panel):
    return panel.ui.inputVolumeSelector.currentNode()


def ended(panel):
    return lambda: not panel._volumePage.isBusy


def shown(panel):
    """The texts of the table of results."""
    table = panel.ui.resultTable
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_pressing_segment_fills_a_segmentation_that_can_be_edited(panel, volume, qt_application, work_plan,
                                                                  result_file):
    work_plan("progress", "work=0.3", f"labels={result_file(volume)}")
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


def test_what_was_found_is_in_a_table_with_the_colours_of_the_segments(panel, volume, qt_application, work_plan,
                                                                       result_file):
    work_plan(f"labels={result_file(volume)}")
    assert not panel.ui.resultTable.visible
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    assert panel.ui.resultTable.visible
    assert shown(panel)[0] == ["left", "0.03 ml", "91 %"]
    swatch = panel.ui.resultTable.item(0, 0).icon().pixmap(12, 12).toImage().pixelColor(6, 6)
    assert (swatch.red(), swatch.green(), swatch.blue()) == (255, 0, 0)


def test_segments_are_kept_and_the_new_ones_get_a_number(panel, volume, qt_application, work_plan, result_file,
                                                         make_segmentation):
    work_plan(f"labels={result_file(volume)}")
    panel._parameterNode.segmentation = node = make_segmentation(volume, {"left": BOX, "mine": BOX})
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    assert not hasattr(panel, "question")
    names = [node.GetSegmentation().GetNthSegment(index).GetName() for index in range(4)]
    assert names == ["left", "mine", "left 2", "right"]
    assert shown(panel)[0][0] == "left 2"


def test_segments_that_may_have_been_corrected_are_replaced_only_after_asking(
        panel, volume, qt_application, work_plan, result_file, make_segmentation, agree):
    work_plan(f"labels={result_file(volume)}")
    panel._parameterNode.segmentation = node = make_segmentation(volume, {"left": BOX, "mine": BOX})
    panel.ui.replaceCheckBox.click()
    panel.ui.segmentButton.click()
    assert "The segments left in" in panel.question
    assert panel.logic.jobs == [] and panel.ui.segmentButton.text == "Segment"
    agree(True)
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    names = [node.GetSegmentation().GetNthSegment(index).GetName() for index in range(3)]
    assert names == ["left", "mine", "right"]


def test_the_options_reach_the_result(panel, volume, qt_application, work_plan, result_file):
    work_plan(f"labels={result_file(volume)}")
    for box in (panel.ui.mirrorCheckBox, panel.ui.largestComponentCheckBox, panel.ui.smoothCheckBox):
        box.click()
    panel.ui.smoothingFactorSpinBox.setValue(0.7)
    panel.ui.computeSelector.setCurrentIndex(1)
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    options = panel._parameterNode.segmentation.GetAttribute("MedMAE.options")
    assert options == '{"device": "cpu", "largestComponent": true, "mirror": true, "smoothing": 0.7}'


def test_only_the_region_is_segmented(panel, volume, qt_application, work_plan, result_file):
    work_plan(f"labels={result_file(volume)}")
    roi = panel.ui.roiSelector.addNode()
    assert panel._parameterNode.roi is roi
    bounds, size = np.zeros(6), np.zeros(3)
    volume.GetRASBounds(bounds)
    roi.GetSizeWorld(size)
    np.testing.assert_allclose(size, bounds[1::2] - bounds[::2])
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    assert '"region": [' in panel._parameterNode.segmentation.GetAttribute("MedMAE.options")


def test_pressing_cancel_ends_it(panel, work_plan):
    work_plan("work=60")
    panel.ui.segmentButton.click()
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Segment"
    assert panel.ui.statusLabel.text == "Cancelled."
    assert panel.logic.jobs == [] and not panel.ui.progressBar.visible


def test_pressing_again_while_the_volume_is_handed_over_cancels(panel, work_plan, monkeypatch):
    work_plan("work=60")
    texts = []

    def react():
        texts.append(panel.ui.segmentButton.text)
        if len(texts) == 1:
            panel.ui.segmentButton.click()

    monkeypatch.setattr(slicer.app, "processEvents", react)
    panel.ui.segmentButton.click()
    assert texts[0] == "Cancel"
    assert panel.logic.jobs == [] and not panel._volumePage.isBusy
    assert panel.ui.statusLabel.text == "Cancelled." and panel.ui.segmentButton.text == "Segment"


def test_the_childs_reason_is_shown(panel, qt_application, work_plan):
    work_plan("fail=The image is sheared. Resample it first.")
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    assert panel.ui.segmentButton.text == "Segment"
    assert panel.ui.statusLabel.text == "The image is sheared. Resample it first."
    assert "The image is sheared" in panel.shownError


def test_a_start_that_fails_leaves_the_panel_as_it_was(panel):
    from MedMAESegmentLib.WorkerSession import WorkerSession

    panel.logic.worker = WorkerSession(["/no/such/interpreter"])
    with pytest.raises(OSError, match="No such file"):
        panel._volumePage.onSegmentButton()
    assert not panel.ui.progressBar.visible
    assert panel.ui.statusLabel.text == ""
    assert panel.ui.segmentButton.text == "Segment" and panel.ui.segmentButton.enabled


def test_a_result_that_comes_while_another_module_is_open_is_shown_on_return(
        panel, volume, qt_application, work_plan, result_file):
    work_plan("work=0.3", f"labels={result_file(volume)}")
    panel.ui.segmentButton.click()
    panel.exit()
    until(qt_application, ended(panel))
    panel.enter()
    assert panel.ui.segmentationSelector.currentNode().GetSegmentation().GetNumberOfSegments() == 2
    assert panel.ui.editButton.enabled and panel.ui.resultTable.visible


@pytest.mark.alone
def test_the_event_loop_is_never_held_while_the_child_works(panel, volume, qt_application, work_plan, result_file):
    work_plan("progress", "work=1", "progress", f"labels={result_file(volume)}")
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


def test_closing_the_scene_ends_what_is_under_way(panel, application, work_plan):
    work_plan("work=60")
    panel.ui.segmentButton.click()
    application.clear()
    assert panel.logic.jobs == [] and not panel._volumePage.isBusy
    assert panel.ui.segmentButton.text == "Segment" and not panel.ui.segmentButton.enabled


def test_a_volume_that_is_removed_meanwhile_is_explained(panel, volume, qt_application, work_plan, scene):
    work_plan("work=60")
    panel.ui.segmentButton.click()
    scene.RemoveNode(volume)
    until(qt_application, ended(panel))
    assert "was removed from the scene" in panel.shownError
    assert panel.ui.segmentButton.text == "Segment" and not panel.ui.segmentButton.enabled


def test_a_model_that_is_removed_meanwhile_does_not_end_the_run(panel, volume, qt_application, work_plan, result_file,
                                                                monkeypatch):
    import medmae.models

    work_plan("work=0.3", f"labels={result_file(volume)}")
    panel.ui.segmentButton.click()
    monkeypatch.setattr(medmae.models, "list_models", list)
    monkeypatch.setattr(medmae.models, "survey_models", lambda: ([], []))
    panel.exit()
    panel.enter()
    assert panel.ui.segmentButton.text == "Cancel"
    until(qt_application, ended(panel))
    assert panel.ui.resultTable.visible and not panel.ui.segmentButton.enabled


def test_another_volume_is_begun_meanwhile_and_each_shows_its_own_state(
        panel, volume, qt_application, make_volume, work_plan, result_file):
    other = make_volume(name="CT of another")
    work_plan("progress", "work=0.5", f"labels={result_file(volume)}")
    panel.ui.segmentButton.click()
    panel.exit()
    panel.enter()
    panel.ui.inputVolumeSelector.setCurrentNode(other)
    assert panel.ui.segmentButton.text == "Segment" and not panel.ui.progressBar.visible
    panel.ui.segmentButton.click()
    assert panel.ui.segmentButton.text == "Cancel" and len(panel.logic.jobs) == 2
    until(qt_application, ended(panel))
    results = [panel._parameterNode.segmentation]
    panel.ui.inputVolumeSelector.setCurrentNode(volume)
    results.append(panel._parameterNode.segmentation)
    assert [node.GetName() for node in results] == ["CT of another segmentation", "CT of somebody segmentation"]
    assert panel.ui.resultTable.visible


def test_a_result_that_came_meanwhile_can_be_edited_once_its_volume_is_chosen(
        panel, volume, qt_application, make_volume, work_plan, result_file):
    work_plan("work=0.3", f"labels={result_file(volume)}")
    other = make_volume(name="another")
    panel.ui.segmentButton.click()
    panel.ui.inputVolumeSelector.setCurrentNode(other)
    until(qt_application, ended(panel))
    assert panel._parameterNode.segmentation is None and not panel.ui.editButton.enabled
    panel.ui.inputVolumeSelector.setCurrentNode(volume)
    assert panel.ui.resultTable.visible and panel.ui.editButton.enabled
    assert panel._parameterNode.segmentation is panel._volumePage._shownRun().job.result


def test_the_result_of_the_next_volume_does_not_go_into_the_last_ones(panel, volume, make_volume, make_segmentation):
    two = make_volume(name="two")
    result, own = make_segmentation(volume, {"left": BOX}), make_segmentation(two, {"mine": BOX})
    panel._parameterNode.segmentation = result
    panel.ui.inputVolumeSelector.setCurrentNode(two)
    assert panel._parameterNode.segmentation is None
    assert panel.ui.segmentationSelector.currentText == "New segmentation"
    panel.ui.segmentationSelector.setCurrentNode(own)
    panel.ui.mirrorCheckBox.click()
    assert panel._parameterNode.segmentation is own


def test_the_volume_and_the_batch_are_computed_one_after_the_other(panel, volume, qt_application, make_volume,
                                                                   work_plan, result_file):
    make_volume(name="CT of another")
    work_plan("work=0.3", f"labels={result_file(volume)}")
    batch = panel._batchPage
    until(qt_application, lambda: batch.ui.batchTable.rowCount == 2)
    panel.ui.segmentButton.click()
    batch.ui.batchButton.click()
    assert panel._volumePage.isBusy and batch.isBusy and not panel.isIdle()
    until(qt_application, ended(panel))
    assert panel.ui.statusLabel.text.startswith("Done in")
    until(qt_application, lambda: not batch.isBusy, 30)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 3
    assert panel.isIdle()


def test_closing_the_scene_ends_the_volume_and_the_batch(panel, application, qt_application, make_volume, work_plan):
    make_volume(name="CT of another")
    work_plan("work=60")
    until(qt_application, lambda: panel._batchPage.ui.batchTable.rowCount == 2)
    panel.ui.segmentButton.click()
    panel._batchPage.ui.batchButton.click()
    application.clear()
    assert panel.isIdle() and panel.logic.jobs == []


def test_leaving_slicer_while_it_computes_ends_it(panel, work_plan):
    work_plan("work=60")
    panel.ui.segmentButton.click()
    panel.cleanup()
    assert panel.logic.jobs == [] and not panel._volumePage.isBusy


def test_a_result_that_is_deleted_leaves_its_table(panel, volume, qt_application, work_plan, result_file, scene):
    work_plan(f"labels={result_file(volume)}")
    panel.ui.segmentButton.click()
    until(qt_application, ended(panel))
    scene.RemoveNode(panel._parameterNode.segmentation)
    panel.exit()
    panel.enter()
    assert shown(panel)[0][0] == "left" and not panel.ui.editButton.enabled


def test_closing_the_scene_while_the_volume_is_handed_over_leaves_an_empty_panel(panel, application, work_plan,
                                                                                 monkeypatch):
    work_plan("work=60")
    monkeypatch.setattr(slicer.app, "processEvents", application.clear)
    panel.ui.segmentButton.click()
    assert panel.isIdle() and panel.logic.jobs == []
    assert panel.ui.statusLabel.text == "Choose a volume." and not panel.ui.progressBar.visible


def test_removing_the_volume_while_it_is_handed_over_is_explained(panel, volume, scene, work_plan, monkeypatch):
    work_plan("work=60")
    monkeypatch.setattr(slicer.app, "processEvents", lambda: scene.RemoveNode(volume))
    with pytest.raises(ValueError, match="was removed from the scene while it was being handed over"):
        panel._volumePage.onSegmentButton()
    assert panel.isIdle() and panel.ui.statusLabel.text == "Choose a volume."


def test_labels_that_end_in_numbers_are_not_taken_for_one_another(panel, volume, make_segmentation):
    from MedMAESegmentLib.SegmentSummary import SegmentSummary

    node = make_segmentation(volume, {"rib": BOX, "rib 2": BOX, "rib 3": BOX, "rib 2 2": BOX})
    summaries = [SegmentSummary("rib", 5, 0.0042), SegmentSummary("rib 2", 50000, 50.0, 0.9)]
    panel._volumePage._table.showSegments(summaries, node)
    assert shown(panel) == [["rib 3", "less than 0.01 ml", "unknown"], ["rib 2 2", "50.0 ml", "90 %"]]
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetSegmentIdBySegmentName("rib 3"))
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetSegmentIdBySegmentName("rib 2 2"))
    panel._volumePage._table.showSegments(summaries, node)
    assert [row[0] for row in shown(panel)] == ["rib", "rib 2"]
