"""The table of cases: what it shows, sorting, and everything that changes selected cases."""

from __future__ import annotations

import time

import pytest
import slicer
from panel_fixtures import until
from train_fixtures import A, B, choose, rows

NAME, STATE, ROLE, CLASS, PATIENT = range(5)


@pytest.fixture
def three(add_case):
    """Two annotated cases, of which one lacks a label, and an image."""
    return [add_case({"liver": A, "spleen": B}, "one"), add_case({"liver": A, "spleen": None}, "two"),
            add_case(None, "three")]


def select(cases, *identities):
    cases.select(identities)


def test_without_a_project_and_without_cases_it_is_told_what_to_do(cases, livers, picture):
    assert cases.ui.casesEmptyLabel.isVisibleTo(cases.parent) and not cases.ui.casesTree.isVisibleTo(cases.parent)
    assert "three annotated cases" in cases.ui.casesEmptyLabel.text
    picture(cases, "cases-none")
    cases.current[0] = None
    cases.update()
    assert cases.ui.casesNoProjectLabel.isVisibleTo(cases.parent)
    assert not cases.ui.casesAddButton.isVisibleTo(cases.parent)
    picture(cases, "cases-no-project")


def test_a_row_tells_what_a_case_is(cases, three, livers, picture):
    livers.setRole("case-0001", "test")
    livers.setClass("case-0001", "sick")
    assert rows(cases) == [
        ["one\nliver, spleen", "Annotated", "Test", "sick", "1"], ["three", "-", "Pretraining", "", "3"],
        ["two\nliver, spleen", "Begun", "Training", "", "2"]]
    toolTip = cases.ui.casesTree.topLevelItem(2).toolTip(NAME)
    for text in ("two (case-0002)", "A volume of the scene", "Patient: subject-0002", "liver: 18 voxels",
                 "spleen: empty", "No voxel of spleen", "nothing is learned from it yet"):
        assert text in toolTip
    assert cases.ui.casesCountLabel.text == "1 annotated, 2 not annotated, 1 for test"
    picture(cases, "cases-three")


def test_names_of_segments_and_images_are_never_html(cases, add_case):
    add_case({"<b>liver</b>": A}, "<i>one</i>")
    assert "&lt;i&gt;one" in cases.ui.casesTree.topLevelItem(0).toolTip(NAME)
    assert rows(cases)[0][NAME] == "<i>one</i>\n<b>liver</b>"


def test_sorting_by_a_column_keeps_the_selection(cases, three, livers):
    select(cases, "case-0002")
    shown = []
    for column in (STATE, STATE, ROLE, CLASS, PATIENT, NAME, NAME):
        cases.list.onSectionClicked(column)
        shown.append([row[NAME].split("\n")[0] for row in rows(cases)])
        assert cases.list.selection == ["case-0002"]
        assert [item.text(PATIENT) for item in cases.ui.casesTree.selectedItems()] == ["2"]
    assert shown == [["two", "three", "one"], ["one", "two", "three"], ["one", "two", "three"], ["one", "two", "three"],
                     ["one", "two", "three"], ["one", "three", "two"], ["two", "three", "one"]]


def test_the_selection_stays_when_cases_change_and_goes_with_them(cases, three, livers):
    select(cases, "case-0001", "case-0003")
    livers.setRole("case-0002", "validation")
    assert cases.list.selection == ["case-0001", "case-0003"]
    livers.removeCases("case-0001")
    assert cases.list.selection == ["case-0003"] and len(rows(cases)) == 2


def test_the_role_of_several_cases_is_changed_together(cases, three, livers):
    select(cases, "case-0001", "case-0002")
    choose(cases.menu.menu, "Used for", "Validation")
    assert [case.role for case in livers.cases] == ["validation", "validation", "unlabelled"]
    cases.menu.menu.aboutToShow.emit()
    assert [role for role, action in cases.menu.roleActions.items() if action.checked] == ["validation"]


def test_a_patient_on_two_sides_of_the_split_is_explained(cases, three, livers, monkeypatch, picture):
    import qt

    monkeypatch.setattr(qt.QInputDialog, "getText", lambda *_arguments: ("patient A", True))
    select(cases, "case-0001", "case-0002")
    choose(cases.menu.menu, "Same patient...")
    assert [case.subject for case in livers.cases] == ["patient A", "patient A", "subject-0003"]
    select(cases, "case-0001")
    choose(cases.menu.menu, "Used for", "Test")
    assert "The cases were not changed. patient A would be in test (one (case-0001))" in cases.messages.text
    assert "one side only" in cases.messages.text
    assert [case.role for case in livers.cases][:2] == ["training", "training"]
    picture(cases, "cases-two-sides")


def test_classes_are_chosen_entered_and_taken_away(cases, three, livers, monkeypatch):
    import qt

    monkeypatch.setattr(qt.QInputDialog, "getText", lambda *_arguments: ("sick & tired", True))
    select(cases, "case-0001", "case-0003")
    choose(cases.menu.menu, "Class", "Another...")
    select(cases, "case-0002")
    choose(cases.menu.menu, "Class", "sick && tired")
    assert {case.className for case in livers.cases} == {"sick & tired"}
    choose(cases.menu.menu, "Class", "None")
    assert livers.case("case-0002").className is None


def test_labels_that_are_not_there_to_see_are_accepted_and_expected_again(cases, three, livers):
    select(cases, "case-0002", "case-0003")
    choose(cases.menu.menu, "Nothing more to draw")
    assert livers.case("case-0002").state == "annotated" and not livers.case("case-0003").allowMissing
    select(cases, "case-0002")
    cases.menu.menu.aboutToShow.emit()
    assert cases.menu.missingAction.checked
    choose(cases.menu.menu, "Nothing more to draw")
    assert livers.case("case-0002").state == "unannotated"


def test_a_prediction_that_is_right_is_marked_as_corrected(cases, three, livers):
    livers.setState("case-0001", "predicted")
    assert cases.ui.casesCountLabel.text == "1 predicted, 2 not annotated"
    select(cases, "case-0001")
    choose(cases.menu.menu, "Mark prediction as corrected")
    assert livers.case("case-0001").state == "corrected"
    cases.menu.menu.aboutToShow.emit()
    assert not cases.menu.correctedAction.enabled


@pytest.mark.parametrize("deleteFiles", [False, True])
def test_removing_asks_first_and_deletes_files_on_request_only(cases, three, livers, answers, deleteFiles):
    def answer(dialog):
        dialog.filesCheckBox.setChecked(deleteFiles)
        return True

    select(cases, "case-0001")
    answers.append(lambda dialog: False)
    cases.ui.casesRemoveButton.click()
    assert len(livers.cases) == 3
    answers.append(answer)
    cases.ui.casesTree.setFocus()
    cases.list._shortcut.activated.emit()  # the key Delete
    assert [case.id for case in livers.cases] == ["case-0002", "case-0003"]
    assert (livers.path / "cases" / "case-0001").exists() is not deleteFiles
    assert cases.list.selection == [] and not cases.ui.casesRemoveButton.enabled


def test_the_key_delete_without_a_selection_does_nothing(cases, three, answers):
    cases.list._shortcut.activated.emit()
    assert len(rows(cases)) == 3


def test_the_context_menu_offers_the_same(cases, three, qt_application):
    import qt

    cases.ui.casesTree.customContextMenuRequested.emit(qt.QPoint(5, 5))
    assert not cases.menu.menu.isVisible()
    select(cases, "case-0001")
    cases.ui.casesTree.customContextMenuRequested.emit(qt.QPoint(5, 5))
    assert cases.menu.menu.isVisible()
    cases.menu.menu.hide()


def test_pictures_are_drawn_meanwhile_and_an_image_without_one_does_not_disturb(
        cases, livers, make_volume, tmp_path, qt_application):
    from MedMAESegmentLib.VolumeExport import writeVolume

    writeVolume(make_volume(), tmp_path / "good.nrrd")
    (tmp_path / "bad.nrrd").write_text("NRRD0004\n")
    livers.addImages([tmp_path / "bad.nrrd", tmp_path / "good.nrrd"])
    assert livers.thumbnail("case-0001") is livers.thumbnail("case-0002") is None
    until(qt_application, lambda: livers.thumbnail("case-0002") is not None and cases._thumbnails._task is None)
    assert livers.thumbnail("case-0001") is None and cases.messages.text == ""
    cases.update()
    assert cases._thumbnails._waiting == {}  # it is not tried again and again


@pytest.mark.alone
def test_thousands_of_cases_are_shown_little_by_little(cases, livers, tmp_path, qt_application):
    (tmp_path / "many").mkdir()
    for number in range(1500):
        (tmp_path / "many" / f"{number:04d}.png").touch()
    livers.addImages(tmp_path / "many")
    longest, last = 0.0, time.perf_counter()
    while cases.ui.casesTree.topLevelItemCount < 1500:
        qt_application.application.processEvents()
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    assert longest < 0.5  # alone some 30 ms; the machine may be busy
    start = time.perf_counter()
    livers.setRole("case-0007", "training")
    assert time.perf_counter() - start < 1
    select(cases, "case-1400")
    assert cases.list.selection == ["case-1400"]


def test_a_project_that_was_changed_or_removed_elsewhere_is_explained(cases, three, livers):
    select(cases, "case-0001")
    (livers.path / "project.json").touch()
    choose(cases.menu.menu, "Used for", "Test")
    assert "changed by another Slicer" in cases.messages.text
    (livers.path / "project.json").unlink()
    choose(cases.menu.menu, "Used for", "Test")
    assert "is not at" in cases.messages.text
    assert livers.case("case-0001").role == "training"


def test_a_project_that_was_closed_is_explained(cases, three, livers):
    select(cases, "case-0001")
    livers.close()
    choose(cases.menu.menu, "Used for", "Test")
    assert "was closed. Open it again" in cases.messages.text


def test_messages_are_closed_and_long_ones_shown_in_a_window(cases, qt_application, picture):
    import qt

    cases.messages.tell("\n".join(f"line {number}" for number in range(30)), isProblem=True)
    assert cases.messages.allButton.isVisibleTo(cases.parent) and "line 29" not in cases.messages.label.text
    picture(cases, "cases-long-message")
    seen = []

    def look():
        window = qt.QApplication.activeModalWidget()
        seen.append(window.findChild(qt.QPlainTextEdit).toPlainText())
        window.reject()

    qt.QTimer.singleShot(100, look)
    cases.messages.allButton.click()
    assert "line 29" in seen[0]
    cases.messages.closeButton.click()
    assert not cases.messages.frame.isVisibleTo(cases.parent) and cases.messages.text == ""


def test_a_closed_scene_leaves_the_cases_as_they_are(cases, three, application, qt_application):
    application.clear()
    until(qt_application, lambda: not cases.ui.casesSaveButton.enabled)
    assert len(rows(cases)) == 3 and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == 0
