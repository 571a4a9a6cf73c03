"""Cases are opened in the Segment Editor and saved back; the labels of a project are named and ordered."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import slicer
from panel_fixtures import until
from train_fixtures import A, B, C, rows


@pytest.fixture
def one(add_case, application):
    """An annotated case that is not in the scene."""
    case = add_case({"liver": A, "spleen": B}, "one")
    application.clear()
    return case


def draw(segmentationNode, name, box):
    """Draw a segment, in a new one where there is none of that name."""
    segmentation = segmentationNode.GetSegmentation()
    volume = segmentationNode.GetNodeReference(segmentationNode.GetReferenceImageGeometryReferenceRole())
    segment = segmentation.GetSegmentIdBySegmentName(name) or segmentation.AddEmptySegment("", name)
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[box] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentationNode, segment, volume)


def icon(cases):
    """The picture of the first row."""
    return cases.ui.casesTree.topLevelItem(0).icon(0).pixmap(36, 36).toImage()


def segmentations():
    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_the_selected_case_is_opened_in_the_segment_editor(cases, one, picture):
    cases.update()
    assert not cases.ui.casesOpenButton.enabled and not cases.ui.casesSaveButton.enabled
    cases.ui.casesTree.topLevelItem(0).setSelected(True)
    cases.ui.casesOpenButton.click()
    node, editor = segmentations()[0], slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    assert editor.GetSegmentationNode() is node and editor.GetSourceVolumeNode().GetName() == "one"
    assert editor.GetSelectedSegmentID() == node.GetSegmentation().GetNthSegmentID(0)
    assert cases.module == ["SegmentEditor"] and cases.messages.text == ""
    assert cases.ui.casesTree.topLevelItem(0).font(0).bold() and cases.ui.casesSaveButton.enabled
    assert "Save what was drawn on one into the project." in cases.ui.casesSaveButton.toolTip
    picture(cases, "case-open")


def test_a_double_click_opens_and_opening_twice_loads_once(cases, one):
    cases.ui.casesTree.itemDoubleClicked.emit(cases.ui.casesTree.topLevelItem(0), 0)
    cases.open("case-0001")
    assert len(segmentations()) == 1 and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 1
    assert cases.module == ["SegmentEditor"] * 2


def test_opening_hides_what_is_drawn_on_other_images(cases, one, add_case):
    add_case({"liver": A, "spleen": B}, "two")
    cases.open("case-0001")
    shown = {node.GetName(): node.GetDisplayNode().GetVisibility() for node in segmentations()}
    assert shown.pop("one segmentation") == 1 and set(shown.values()) == {0}


def test_what_was_drawn_is_saved_back(cases, one, livers, picture):
    cases.open("case-0001")
    draw(segmentations()[0], "spleen", C)
    before = icon(cases)
    cases.ui.casesSaveButton.click()
    assert icon(cases) != before
    case = livers.cases[0]
    assert case.voxels == {"liver": 18, "spleen": 1} and case.state == "annotated"
    assert cases.messages.text == "one was saved."
    picture(cases, "case-saved")


def test_a_segment_of_another_name_is_asked_about_when_saving_and_then_known(cases, one, livers, answers):
    cases.open("case-0001")
    draw(segmentations()[0], "Leber links", C)

    def fill(dialog):
        assert list(dialog.selectors) == ["Leber links"]
        dialog.selectors["Leber links"].setCurrentIndex(3)
        return True

    answers.append(lambda dialog: False)
    cases.save()
    assert len(livers.cases[0].segments) == 2
    answers.append(fill)
    cases.save()
    assert "one was saved.\nLeft out: Leber links." in cases.messages.text
    cases.save()  # nothing is asked
    assert livers.cases[0].voxels == {"liver": 18, "spleen": 24}


def test_a_case_that_lacks_a_label_is_saved_and_told_what_to_do(cases, livers, add_case):
    add_case({"liver": A, "spleen": B}, "one")
    add_case(None, "two")
    cases.open("case-0002")
    node = next(node for node in segmentations() if node.GetName() == "two segmentation")
    assert [node.GetSegmentation().GetNthSegment(number).GetName() for number in range(2)] == ["liver", "spleen"]
    draw(node, "liver", A)
    cases.save()
    assert livers.case("case-0002").state == "unannotated"
    for text in ("two was saved.", "No voxel of spleen.", "Nothing is learned from it until all labels are drawn."):
        assert text in cases.messages.text
    draw(node, "spleen", B)
    cases.save()
    case = livers.case("case-0002")
    assert (case.state, case.role, cases.messages.text) == ("annotated", "training", "two was saved.")


def test_of_several_open_cases_the_selected_one_is_saved(cases, livers, add_case):
    for name in ("one", "two"):
        add_case({"liver": A}, name)
    assert cases._saved() == "case-0001"
    cases.open("case-0002")
    cases.list.select([])
    assert cases._saved() == "case-0002"  # the one that was opened last
    cases.list.select(["case-0001"])
    assert cases._saved() == "case-0001"
    cases.save()
    assert cases.messages.text == "one was saved."


def test_a_prediction_that_is_saved_becomes_corrected(cases, one, livers):
    livers.setState("case-0001", "predicted")
    cases.open("case-0001")
    cases.save()
    assert livers.cases[0].state == "corrected" and rows(cases)[0][1] == "Corrected"


def test_a_case_whose_image_is_gone_is_explained(cases, one, livers):
    (livers.path / "cases" / "case-0001" / "image.nrrd").unlink()
    cases.open("case-0001")
    assert cases.messages.text.startswith("The case cannot be opened. The image of one (case-0001)")
    assert "Was it moved or removed?" in cases.messages.text and cases.module == []
    assert segmentations() == []


def test_a_case_that_there_is_not_is_explained(cases, one):
    cases.open("case-0099")
    assert "has no case case-0099" in cases.messages.text


def test_a_segmentation_that_was_deleted_cannot_be_saved(cases, one, scene, qt_application):
    cases.open("case-0001")
    scene.RemoveNode(segmentations()[0])
    until(qt_application, lambda: not cases.ui.casesSaveButton.enabled)
    assert cases.ui.casesSaveButton.toolTip == "No case is open in the scene."
    cases.save()
    assert cases.messages.text == "No case is open in the scene. Open one first."


def test_a_segmentation_whose_volume_was_deleted_is_explained(cases, one, scene):
    cases.open("case-0001")
    scene.RemoveNode(slicer.util.getNodesByClass("vtkMRMLVolumeNode")[0])
    cases.save()
    assert cases.messages.text.startswith("The case was not saved.") and "Open the case first" in cases.messages.text


def test_a_segmentation_without_segments_is_explained_and_nothing_lost(cases, one, livers):
    cases.open("case-0001")
    segmentations()[0].GetSegmentation().RemoveAllSegments()
    cases.save()
    assert "The case was not saved." in cases.messages.text and "Draw something first" in cases.messages.text
    assert livers.cases[0].voxels == {"liver": 18, "spleen": 24}


def test_a_project_folder_that_was_removed_is_explained(cases, one, livers):
    cases.open("case-0001")
    shutil.rmtree(livers.path)
    cases.save()
    assert cases.messages.text.startswith("The case was not saved.")
    cases.update()
    assert len(rows(cases)) == 1


def test_labels_are_added_renamed_coloured_ordered_and_removed(cases, one, livers, said, monkeypatch, user_settings):
    import qt
    from MedMAETrainLib.Panel.LabelsDialog import LabelsDialog

    dialog = LabelsDialog(livers)

    def names():
        assert [dialog.list.item(row).text() for row in range(dialog.list.count)] == [
            label.name for label in livers.labels]
        return [label.name for label in livers.labels]

    def enter(text):
        monkeypatch.setattr(qt.QInputDialog, "getText", lambda *_arguments: (text, True))

    assert names() == ["liver", "spleen"] and dialog.name == "liver" and not dialog.upButton.enabled
    assert dialog.hintLabel.text.startswith("liver is drawn on 1 cases.")
    enter("tumour")
    dialog.addButton.click()
    assert names() == ["liver", "spleen", "tumour"] and dialog.name == "tumour" and not dialog.downButton.enabled
    dialog.upButton.click()
    dialog.upButton.click()
    assert names() == ["tumour", "liver", "spleen"]
    dialog.downButton.click()
    assert names() == ["liver", "tumour", "spleen"]
    enter("lesion")
    dialog.renameButton.click()
    monkeypatch.setattr(qt.QColorDialog, "getColor", lambda *_arguments: qt.QColor(255, 0, 0))
    dialog.colorButton.click()
    assert livers.label("lesion").color == (1.0, 0.0, 0.0)
    monkeypatch.setattr(qt.QColorDialog, "getColor", lambda *_arguments: qt.QColor())
    dialog.colorButton.click()
    assert livers.label("lesion").color == (1.0, 0.0, 0.0) and said == []
    enter("liver")
    dialog.renameButton.click()
    assert "The labels were not changed.\n\nThere is a label liver already." in said[-1]
    dialog.removeButton.click()
    assert names() == ["liver", "spleen"]
    dialog.removeButton.click()
    assert "in use by one (case-0001)" in said[-1] and names() == ["liver", "spleen"]
    dialog.dialog.deleteLater()


def test_a_project_without_labels_tells_where_they_come_from(cases, livers, qt_application):
    import qt

    seen = []

    def look():
        window = qt.QApplication.activeModalWidget()
        seen.append([label.text for label in window.findChildren(qt.QLabel)])
        window.reject()

    qt.QTimer.singleShot(100, look)
    cases.ui.casesLabelsButton.click()
    assert any("The segments of the first annotated case become the labels" in text for text in seen[0])


def test_the_panel_opens_cases_for_the_other_pages(open_panel, one, livers, user_settings, monkeypatch):
    monkeypatch.setattr("MedMAETrainLib.TrainLogic.TrainLogic.openProject", lambda _self, _folder, **_: livers)
    panel = open_panel("MedMAETrain")
    panel.projectSection.folder = str(livers.path)
    modules = []
    monkeypatch.setattr(slicer.util, "selectModule", modules.append)
    panel.runsPage.openCase.emit("case-0001")
    panel.nextPage.openCase.emit("case-0001", "a model")
    assert modules == ["SegmentEditor"] * 2 and panel.casesPage.list.selection == ["case-0001"]
