"""The menu that adds cases, and its dialogs: pairs of the scene, files, folders, the DICOM database, segment names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import slicer
from train_fixtures import A, B, C, choose, rows


@pytest.fixture
def file_dialog(monkeypatch, qt_application):
    """What the user chooses in the dialogs for files and folders."""
    import qt

    def choose_paths(*paths):
        chosen = [str(path) for path in paths]
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileNames", lambda *_arguments: (chosen, ""))
        monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_arguments: chosen[0] if chosen else "")

    return choose_paths


@pytest.fixture
def images(tmp_path, make_volume):
    """A folder with two images and a file that is none."""
    from MedMAESegmentLib.VolumeExport import writeVolume

    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.nrrd", "b.nrrd"):
        writeVolume(make_volume(), folder / name)
    slicer.mrmlScene.Clear()
    return folder


def test_a_volume_is_added_with_its_segmentation_role_and_class(
        cases, livers, answers, make_volume, make_segmentation):
    other, volume = make_volume((5, 6, 7), name="other"), make_volume(name="CT of somebody")
    make_segmentation(other, {"liver": C})
    segmentation = make_segmentation(volume, {"liver": A})
    livers.addCase(other)  # the first that is no case yet is proposed

    def fill(dialog):
        assert dialog.volume is volume and dialog.segmentation is segmentation and dialog.okButton.enabled
        dialog.volumeSelector.setCurrentNode(other)
        assert dialog.segmentation is not segmentation
        dialog.volumeSelector.setCurrentNode(volume)
        dialog.roleSelector.setCurrentIndex(2)
        dialog.classSelector.setCurrentText(" sick ")
        return True

    answers.append(fill)
    choose(cases.adding.menu, "A volume of the scene...")
    case = livers.cases[1]
    assert (case.role, case.className, case.state, case.voxels) == ("validation", "sick", "annotated", {"liver": 18})
    assert cases.messages.text == "CT of somebody was added." and cases.list.selection == ["case-0002"]
    assert cases.ui.casesOpenButton.enabled and cases.ui.casesChangeButton.enabled


def test_a_volume_without_a_segmentation_is_an_image_to_draw_on(cases, livers, answers, make_volume):
    make_volume()

    def fill(dialog):
        assert dialog.segmentation is None and not dialog.missingCheckBox.enabled
        return True

    answers += [lambda dialog: False, fill]
    choose(cases.adding.menu, "A volume of the scene...")
    assert livers.cases == ()
    choose(cases.adding.menu, "A volume of the scene...")
    assert (livers.cases[0].role, livers.cases[0].state) == ("unlabelled", "unannotated")


def test_without_volumes_there_is_nothing_to_add_of_the_scene(cases):
    cases.adding.menu.aboutToShow.emit()
    assert not cases.adding.pairAction.enabled and not cases.adding.sceneAction.enabled
    assert cases.adding.folderAction.enabled


def test_a_volume_that_is_a_case_already_is_explained(cases, livers, answers, make_volume):
    livers.addCase(make_volume(name="one"))
    answers.append(lambda dialog: dialog.volumeSelector.setCurrentNode(slicer.util.getNode("one")) or True)
    choose(cases.adding.menu, "A volume of the scene...")
    assert "The case was not added. one is in the project already, as one (case-0001)" in cases.messages.text
    assert len(livers.cases) == 1


def test_all_annotated_volumes_are_added_and_what_is_odd_is_told(
        cases, livers, answers, make_volume, make_segmentation, picture):
    volumes = [make_volume((6 + number, 8, 10), name=name) for number, name in enumerate(("one", "two", "three"))]
    make_segmentation(volumes[0], {"liver": A, "spleen": B})
    make_segmentation(volumes[1], {"liver": A, "Spleen": None})
    make_segmentation(volumes[2], {"liver": A, "spleen": A})
    unpaired = make_segmentation(volumes[0], {"liver": A})
    unpaired.SetName("lost")
    unpaired.SetNodeReferenceID(unpaired.GetReferenceImageGeometryReferenceRole(), None)
    choose(cases.adding.menu, "All annotated volumes of the scene")
    assert [case.state for case in livers.cases] == ["annotated", "unannotated", "unannotated"]
    for text in ("3 cases were added.", "two: No voxel of spleen.", "three: liver and spleen overlap in 18 voxels",
                 "three: No voxel of spleen.", "Change > Nothing more to draw", "Left out (1):",
                 "lost: It does not say which volume"):
        assert text in cases.messages.text
    assert cases.list.selection == ["case-0001", "case-0003", "case-0002"]  # by name
    picture(cases, "adding-scene")


def test_segments_of_other_names_are_asked_about_once_for_the_whole_scene(
        cases, livers, answers, make_volume, make_segmentation):
    for number, boxes in enumerate(({"liver": A, "spleen": B}, {"Leber": A, "spleen": B}, {"Leber": A, "Tumour": B},
                                    {"livre": A, "spleen": B})):
        make_segmentation(make_volume((6 + number, 8, 10), name=f"CT {number}"), boxes)

    def fill(dialog):
        assert list(dialog.selectors) == ["Leber", "Tumour", "livre"]
        assert dialog.selectors["livre"].currentText == "liver"  # a proposal
        assert dialog.selectors["Tumour"].currentText == "A new label: Tumour" and "A new label is" in (
            dialog.hintLabel.text)
        dialog.selectors["Leber"].setCurrentIndex(0)
        dialog.selectors["Tumour"].setCurrentIndex(3)
        assert dialog.hintLabel.text == ""
        assert dialog.mapping == {"Leber": "liver", "Tumour": None, "livre": "liver"}
        return True

    answers.append(lambda dialog: False)
    choose(cases.adding.menu, "All annotated volumes of the scene")
    assert livers.cases == ()
    answers.append(fill)
    choose(cases.adding.menu, "All annotated volumes of the scene")
    assert [label.name for label in livers.labels] == ["liver", "spleen"] and len(livers.cases) == 4
    assert livers.cases[1].voxels == {"liver": 18, "spleen": 24} and livers.cases[2].voxels == {"liver": 18}
    assert "CT 2: Left out: Tumour." in cases.messages.text


def test_a_new_label_comes_with_a_volume(cases, livers, answers, add_case, make_volume, make_segmentation):
    add_case({"liver": A})
    make_segmentation(make_volume((9, 8, 10), name="new"), {"liver": A, "tumour": B})
    answers += [lambda dialog: True, lambda dialog: True]
    choose(cases.adding.menu, "A volume of the scene...")
    assert [label.name for label in livers.labels] == ["liver", "tumour"]


def test_a_scene_without_segmentations_is_explained(cases, make_volume):
    make_volume()
    choose(cases.adding.menu, "All annotated volumes of the scene")
    assert cases.messages.text.startswith("No volume of the scene has a segmentation.")


def test_files_and_folders_are_added_and_stay_where_they_are(cases, livers, images, file_dialog):
    file_dialog()
    choose(cases.adding.menu, "Image files...")
    choose(cases.adding.menu, "A folder of images...")
    assert livers.cases == () and cases.messages.text == ""
    file_dialog(images / "b.nrrd")
    choose(cases.adding.menu, "Image files...")
    assert [row[0] for row in rows(cases)] == ["b.nrrd"]
    file_dialog(images)
    choose(cases.adding.menu, "A folder of images...")
    assert [row[0] for row in rows(cases)] == ["a.nrrd", "b.nrrd"]
    assert "b.nrrd is in the project already" in cases.messages.text
    file_dialog(images.parent / "nothing")
    choose(cases.adding.menu, "A folder of images...")
    assert cases.messages.text.startswith("The images were not added.")


def test_adding_shows_how_far_it_is_and_can_be_cancelled(
        cases, livers, answers, make_volume, make_segmentation, monkeypatch, picture):
    for number in range(3):
        make_segmentation(make_volume((6 + number, 8, 10), name=f"CT {number}"), {"liver": A})
    seen = []

    def look():
        if cases.work.isBusy:
            seen.append((cases.ui.casesProgressLabel.text, cases.ui.casesProgressFrame.isVisibleTo(cases.parent),
                         cases.ui.casesAddButton.enabled, cases.ui.casesSaveButton.enabled))
            if "CT 2" in seen[-1][0]:
                monkeypatch.setattr(slicer.app, "processEvents", lambda: None)
                picture(cases, "adding-busy")
                cases.open("case-0001")
                assert "Something else is being done" in cases.messages.text
                cases.ui.casesCancelButton.click()
                assert cases.ui.casesProgressLabel.text == "Cancelling..."

    monkeypatch.setattr(slicer.app, "processEvents", look)
    choose(cases.adding.menu, "All annotated volumes of the scene")
    assert {shown[1:] for shown in seen} == {(True, False, False)} and len(livers.cases) == 2
    assert cases.messages.text == "Cancelled. What was done before is kept."
    assert not cases.work.isBusy and not cases.ui.casesProgressFrame.isVisibleTo(cases.parent)
    assert cases.ui.casesAddButton.enabled


def test_a_volume_that_goes_while_it_is_added_is_explained(
        cases, livers, answers, make_volume, monkeypatch, scene):
    volume = make_volume(name="gone")
    answers.append(lambda dialog: True)

    def remove():
        if cases.work.isBusy and slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode"):
            scene.RemoveNode(volume)

    monkeypatch.setattr(slicer.app, "processEvents", remove)
    choose(cases.adding.menu, "A volume of the scene...")
    assert "gone was removed from the scene" in cases.messages.text and livers.cases == ()


@pytest.fixture
def dicom(monkeypatch, tmp_path):
    """A stand-in for Slicer's DICOM database: two patients, of whom one has a segmentation and a report."""
    tree = {"7": {"1.1": {"1.1.1": "CT", "1.1.2": "MR", "1.1.3": "SEG"}, "1.2": {"1.2.1": "SR"}},
            "8": {"2.1": {"2.1.1": "CT"}}}
    names = {"7": "<b>Doe</b>", "8": "Roe"}
    studies = {study: series for patient in tree.values() for study, series in patient.items()}
    kinds = {uid: kind for series in studies.values() for uid, kind in series.items()}
    database = SimpleNamespace(
        isOpen=True, patients=lambda: tuple(tree), studiesForPatient=lambda patient: tuple(tree[patient]),
        seriesForStudy=lambda study: tuple(studies[study]), nameForPatient=names.get,
        descriptionForStudy=lambda study: f"abdomen {study}", fieldForStudy=lambda field, study: "20260101",
        descriptionForSeries=lambda uid: f"series {uid}", fieldForSeries=lambda field, uid: kinds[uid],
        filesForSeries=lambda uid: (str(tmp_path / "gone.dcm"),) * 3, tree=tree)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    return database


def test_series_are_chosen_by_patient_study_and_search(cases, livers, dicom, answers, monkeypatch, qt_application):
    import qt

    added = []
    monkeypatch.setattr(livers, "addDicom", lambda uids, **_: added.append(uids) or livers_added())

    def livers_added():
        from MedMAETrainLib.ProjectImport import Added

        return Added([], [("1.1.1", "Its files are not there any more.")])

    def fill(dialog):
        qt_application.application.processEvents()
        patient, other = dialog.tree.topLevelItem(0), dialog.tree.topLevelItem(1)
        assert (patient.text(0), other.text(0), patient.childCount()) == ("<b>Doe</b>", "Roe", 1)  # a report alone
        series = patient.child(0)
        assert [series.child(number).text(1) for number in range(series.childCount())] == ["CT", "MR"]
        assert series.text(0) == "20260101 abdomen 1.1" and series.child(0).text(2) == "3"
        assert not dialog.okButton.enabled
        patient.setCheckState(0, qt.Qt.Checked)
        assert dialog.chosen == ["1.1.1", "1.1.2"] and dialog.okButton.enabled
        series.child(1).setCheckState(0, qt.Qt.Unchecked)
        assert patient.checkState(0) == qt.Qt.PartiallyChecked and dialog.chosen == ["1.1.1"]
        other.setCheckState(0, qt.Qt.Checked)
        dialog.searchEdit.setText("roe CT")
        assert patient.isHidden() and dialog.chosen == ["2.1.1"]
        dialog.searchEdit.setText("")
        assert dialog.chosen == ["1.1.1", "2.1.1"] and dialog.countLabel.text.startswith("2 series chosen.")
        return True

    answers.append(fill)
    choose(cases.adding.menu, "From the DICOM database...")
    assert added == [["1.1.1", "2.1.1"]]
    assert cases.messages.text == "Nothing was added.\n\nLeft out (1):\n1.1.1: Its files are not there any more."


def test_series_that_are_cases_already_cannot_be_chosen_again(cases, dicom, qt_application, user_settings):
    import qt
    from MedMAETrainLib.Panel.DicomDialog import DicomDialog

    dialog = DicomDialog({"1.1.1"})
    patient = dialog.tree.topLevelItem(0)
    assert patient.child(0).child(0).text(0) == "series 1.1.1 (in the project)"
    patient.setCheckState(0, qt.Qt.Checked)
    assert dialog.chosen == ["1.1.2"]
    dialog.dialog.deleteLater()


@pytest.mark.parametrize(("database", "text"), [
    (None, "database is not open"), (SimpleNamespace(isOpen=False), "database is not open"),
    (SimpleNamespace(isOpen=True, patients=lambda: ()), "database is empty")])
def test_a_dicom_database_that_is_closed_or_empty_is_explained(cases, monkeypatch, database, text):
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    choose(cases.adding.menu, "From the DICOM database...")
    assert text in cases.messages.text and "module DICOM" in cases.messages.text


def test_a_large_dicom_database_is_listed_little_by_little(cases, dicom, qt_application, user_settings):
    from MedMAETrainLib.Panel.DicomDialog import DicomDialog

    dicom.tree["7"]["1.1"].update({f"9.{number}": "CT" for number in range(4000)})
    kinds = dict(dicom.tree["7"]["1.1"])
    dicom.fieldForSeries = lambda field, uid: kinds.get(uid, "CT")
    dicom.seriesForStudy = lambda study: tuple(dicom.tree["7"]["1.1"]) if study == "1.1" else ()
    dialog = DicomDialog(set())
    assert 0 < len(dialog._series) < 4002
    while dialog._timer.isActive():
        qt_application.application.processEvents()
    assert len(dialog._series) == 4002
    dialog.dialog.deleteLater()
