"""Cases of a project come from the scene, from folders and from the DICOM database; what is odd is repaired or told."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE
from hypothesis import given
from hypothesis import strategies as st
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectLabels import plain, proposeMapping

from medmae.datasets import load_dataset, validate
from medmae.errors import BadInput
from medmae.models.labels import model_labels
from medmae.volumes import Geometry, default_segments, read_image, read_label, read_segments

A, B, C = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9], np.s_[0:1, 0:1, 0:1]


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "project", "Livers") as project:
        yield project


@pytest.fixture
def add(project, make_volume, make_segmentation):
    """Add a new volume with these boxes."""
    def add(boxes, **choices):
        volume = make_volume((6 + len(project.cases), 8, 10))
        return project.addCase(volume, make_segmentation(volume, boxes), **choices)

    return add


def label_of(project, case):
    return read_label(project.file(project.case(case).label)).array[0]


def test_a_pair_becomes_a_case_with_image_label_map_and_what_was_drawn(project, make_volume, make_segmentation):
    volume = make_volume(name="DOE^JANE")
    segmentation = make_segmentation(volume, {"liver": A, "spleen": B}, {"liver": (0.1, 0.9, 0.3)})
    case = project.addCase(volume, segmentation)
    assert (case.id, case.subject, case.role, case.state) == ("case-0001", "subject-0001", "training", "annotated")
    assert case.voxels == {"liver": 18, "spleen": 24} and case.notes == ()
    image = read_image(project.file(case.image))
    np.testing.assert_array_equal(image.array[0], slicer.util.arrayFromVolume(volume))
    assert image.geometry.is_close(Geometry(image.array.shape[1:], OBLIQUE))
    label = read_label(project.file(case.label))
    assert label.geometry.is_close(image.geometry)
    assert (label.array[0][A] == 1).all() and (label.array[0][B] == 2).all() and np.count_nonzero(label.array) == 42
    assert [(each.name, each.value) for each in read_segments(project.file(case.segmentation))] == [
        ("liver", 1), ("spleen", 2)]
    assert project.label("liver").color == pytest.approx((0.1, 0.9, 0.3))
    assert project.thumbnail(case).read_bytes()[16:24] == bytes([0, 0, 0, 96, 0, 0, 0, 96])
    assert sorted(path.name for path in (project.path / "cases").iterdir()) == ["case-0001"]


def test_the_engine_reads_the_data_set_and_keeps_colours(project, make_volume, make_segmentation):
    for role in ("training", "training", "test"):
        volume = make_volume(shape=(6 + len(project.cases), 8, 10))
        project.addCase(volume, make_segmentation(volume, {"liver": A}, {"liver": (0.1, 0.9, 0.3)}), role=role)
    project.addCase(make_volume((9, 9, 9)))
    dataset = load_dataset(project.writeDataset(modality="CT"))
    assert {key: len(cases) for key, cases in dataset.lists.items()} == {"training": 2, "test": 1, "unlabeled": 1}
    assert model_labels(dataset.labels, dataset.looks)[1]["color"] == pytest.approx([0.1, 0.9, 0.3])
    validate(dataset, ["training", "test"])


def test_of_what_leaves_nothing_tells_the_patient(project, make_volume, make_segmentation):
    volume = make_volume(name="DOE^JANE")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.840.99")
    segmentation = make_segmentation(volume, {"liver": A})
    segmentation.SetName("annotated by DR^HOUSE")
    case = project.addCase(volume, segmentation)
    assert case.source.name == "DOE^JANE", "the map stays here"
    for file in (project.file(case.image), project.file(case.label), project.writeDataset()):
        assert not any(secret in file.read_bytes() for secret in (b"DOE", b"HOUSE", b"1.2.840"))


@pytest.mark.parametrize("affine", [np.diag([1.0, 1, 1, 1]), np.diag([-1.0, -1, 1, 1]), np.diag([-2.0, 1, -0.5, 1]),
                                    OBLIQUE[:, [1, 0, 2, 3]], OBLIQUE[:, [2, 1, 0, 3]]])
def test_flipped_and_turned_grids_keep_image_and_label_together(project, make_volume, make_segmentation, affine):
    volume = make_volume(affine=affine)
    case = project.addCase(volume, make_segmentation(volume, {"liver": A}))
    assert (label_of(project, case)[A] == 1).all() and np.count_nonzero(label_of(project, case)) == 18
    validate(load_dataset(project.writeDataset()), ["training"])


def test_a_segmentation_on_another_grid_is_resampled_and_that_is_told(project, make_volume, make_segmentation):
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    half[:3, 3] = -0.25
    volume, fine = make_volume(), make_volume((12, 16, 20), affine=OBLIQUE @ half)
    segmentation = make_segmentation(fine, {"liver": np.s_[2:6, 4:10, 2:8]})
    case = project.addCase(volume, segmentation)
    expected = np.zeros((6, 8, 10))
    expected[1:3, 2:5, 1:4] = 1
    np.testing.assert_array_equal(label_of(project, case), expected)
    assert case.notes == ("Drawn on another grid than the image's; resampled onto it.",)
    drawn = read_label(project.file(case.segmentation))
    assert np.count_nonzero(drawn.array) == 4 * 6 * 6, "what was drawn is kept as it was drawn"


def test_of_overlapping_segments_the_first_label_keeps_the_voxels_and_their_number_is_told(
        project, make_volume, make_segmentation):
    volume = make_volume()
    node = make_segmentation(volume, {"liver": np.s_[1:4, 1:5, 1:5], "tumour": np.s_[2:5, 2:4, 2:4]})
    case = project.addCase(volume, node)
    assert case.notes == ("liver and tumour overlap in 8 voxels, which count as liver.",)
    assert np.bincount(label_of(project, case).ravel()).tolist()[1:] == [48, 4]
    project.setLabelOrder(["tumour", "liver"])
    case = project.saveCase(node)
    assert case.notes == ("tumour and liver overlap in 8 voxels, which count as tumour.",)
    assert np.bincount(label_of(project, case).ravel()).tolist()[1:] == [40, 12]
    with Project.create(project.path.parent / "second") as other:
        other.addLabel("tumour")
        other.addLabel("liver")
        assert np.bincount(label_of(other, other.addCase(volume, node)).ravel()).tolist()[1:] == [12, 40]
    again = slicer.vtkMRMLSegmentationNode()
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(project.file(case.segmentation)))
    slicer.mrmlScene.AddNode(again)
    assert storage.ReadData(again, True)
    counts = [np.count_nonzero(slicer.util.arrayFromSegmentBinaryLabelmap(
        again, again.GetSegmentation().GetNthSegmentID(index), volume)) for index in range(2)]
    assert counts == [48, 12], "both are kept whole in what was drawn"


def test_two_segments_of_one_label_are_one(project, add):
    case = add({"left lobe": A, "right lobe": np.s_[2:4, 2:5, 1:4]},
               mapping={"left lobe": "liver", "right lobe": "liver"})
    assert [label.name for label in project.labels] == ["liver"] and case.notes == ()
    assert np.count_nonzero(label_of(project, case)) == 27


@pytest.mark.parametrize("boxes", [{"liver": None, "spleen": B}, {"liver": None, "spleen": None}])
def test_a_case_with_an_empty_segment_is_kept_but_not_trained_on_until_that_is_meant(project, add, boxes):
    case = add(boxes)
    assert case.state == "unannotated" and case.notes[0].startswith("No voxel of liver")
    with pytest.raises(ValueError, match="No case of the project can be trained on"):
        project.writeDataset()
    again = add(boxes, allowMissing=True)
    assert again.state == "annotated" and again.allowMissing


def test_that_nothing_is_missing_can_be_said_later(project, add):
    add({"liver": A, "tumour": B})
    case = add({"liver": A})
    assert case.state == "unannotated" and case.notes == ("No voxel of tumour.",)
    project.acceptMissing(case)
    assert project.case(case).state == "annotated"
    assert len(load_dataset(project.writeDataset()).cases("training")) == 2
    project.acceptMissing(case, False)
    assert project.case(case).state == "unannotated"


def test_segments_are_matched_by_name_as_people_write_them(project, add):
    add({"Left Kidney": A, "Leber": B})
    case = add({"left_kidney": A, "LEBER ": B})
    assert case.voxels == {"Left Kidney": 18, "Leber": 24} and len(project.labels) == 2
    with pytest.raises(ValueError, match="No label of the project is like the segments milt; its labels are Left Kid"):
        add({"leber": A, "milt": B})
    assert len(project.cases) == 2
    case = add({"leber": A, "milt": B, "scratch": C}, mapping={"milt": "Left Kidney", "scratch": None})
    assert case.voxels == {"Leber": 18, "Left Kidney": 24} and case.notes == ("Left out: scratch.",)
    add({"leber": A, "milt": B}, mapping={"milt": "Spleen"})
    assert [label.name for label in project.labels] == ["Left Kidney", "Leber", "Spleen"]
    with pytest.raises(ValueError, match="There is no segment lung"):
        add({"leber": A}, mapping={"lung": None})


@pytest.mark.parametrize(("one", "other"), [("Liver", "liver "), ("Nierenbecken links", "nierenbecken_links"),
                                            ("Ösophagus", "osophagus"), ("foie-gauche", "Foie Gauche"), ("ß", "SS")])
def test_names_that_are_alike(one, other):
    assert plain(one) == plain(other)
    assert proposeMapping(default_segments({one: 1}), [other]) == {other: one}


@given(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=5), st.text(min_size=1, max_size=6))
def test_a_proposal_never_invents_and_prefers_the_same_name(names, wanted):
    labels = default_segments({name: number for number, name in enumerate(names, 1)})
    proposed = proposeMapping(labels, [wanted])[wanted]
    assert proposed == wanted if wanted in names or not any(plain(name) == plain(wanted) for name in names) else (
        proposed in names and plain(proposed) == plain(wanted))


@pytest.mark.parametrize("name", ["<b>liver</b>", "a/b", "../x", 'q"uo\\te', "ü字"])
def test_hostile_names_of_nodes_and_segments_stay_names(project, make_volume, make_segmentation, name):
    volume = make_volume(name=name)
    case = project.addCase(volume, make_segmentation(volume, {name: A}))
    assert case.source.name == name and project.labels[0].name == name
    assert project.file(case.image) == project.path / "cases" / "case-0001" / "image.nrrd"
    assert load_dataset(project.writeDataset()).labels[name] == 1


@pytest.mark.parametrize(("change", "message"), [
    (lambda node: node.GetSegmentation().RemoveAllSegments(), "has no segments"),
    (lambda node: node.GetSegmentation().AddEmptySegment("", "liver"), "2 segments named liver"),
    (lambda node: node.GetSegmentation().AddEmptySegment("", "background"), "background already"),
    (lambda node: node.GetSegmentation().GetNthSegment(0).SetName(" "), "has no name")])
def test_what_cannot_be_labels_is_told_and_leaves_nothing(project, make_volume, make_segmentation, change, message):
    volume = make_volume()
    node = make_segmentation(volume, {"liver": A})
    change(node)
    with pytest.raises(ValueError, match=message):
        project.addCase(volume, node)
    assert project.cases == () and not (project.path / "cases").exists()


def test_what_is_no_usable_volume_is_told(project, make_volume):
    with pytest.raises(ValueError, match="A volume is needed"):
        project.addCase(None)
    tilted = np.eye(4)
    tilted[1, 2] = 0.4
    with pytest.raises(BadInput, match="shear"):
        project.addCase(make_volume(affine=tilted))


def test_the_same_image_twice_is_told(project, make_volume, make_segmentation):
    volume = make_volume(name="CT 1")
    project.addCase(volume, make_segmentation(volume, {"liver": A}))
    with pytest.raises(ValueError, match="CT 1 is in the project already, as case-0001"):
        project.addCase(volume)
    assert project.addCase(volume, again=True).id == "case-0002"


def test_all_pairs_of_the_scene_are_added_and_what_has_no_partner_is_named(project, make_volume, make_segmentation):
    volumes = [make_volume((6, 8, 10), name="one"), make_volume((7, 8, 10), name="two"), make_volume((8, 8, 10),
               name="three"), make_volume((9, 8, 10), name="alone"), make_volume((5, 8, 10), name="empty")]
    for volume in volumes[:3]:
        make_segmentation(volume, {"liver": A})
    make_segmentation(volumes[2], {"liver": B})
    make_segmentation(volumes[4], {})
    stray = make_segmentation(volumes[3], {"liver": A})
    stray.SetName("of nobody")
    stray.SetNodeReferenceID(stray.GetReferenceImageGeometryReferenceRole(), None)
    added = project.addScene()
    assert [case.source.name for case in added.cases] == ["one", "two"]
    told = dict(added.skipped)
    assert set(told) == {"three", "of nobody", "empty"}
    assert "2 segmentations" in told["three"] and "which volume" in told["of nobody"] and "no segments" in told["empty"]
    assert {"one", "two"} <= {name for name, reason in project.addScene().skipped if "already" in reason}


def test_volumes_of_one_patient_are_one_subject_and_follow_their_role(project, scene, make_volume, make_segmentation):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "DOE^JANE"), "first")
    volumes = [make_volume((size, 8, 10)) for size in (6, 7, 8, 9)]
    for volume in volumes[:3]:
        hierarchy.CreateItem(study, volume)
    first = project.addCase(volumes[0], make_segmentation(volumes[0], {"liver": A}), role="test")
    second = project.addCase(volumes[1], make_segmentation(volumes[1], {"liver": A}))
    assert (second.subject, second.role) == (first.subject, "test")
    with pytest.raises(ValueError, match="one side only"):
        project.addCase(volumes[2], make_segmentation(volumes[2], {"liver": A}), role="training")
    assert sorted(path.name for path in (project.path / "cases").iterdir()) == ["case-0001", "case-0002"]
    assert project.addCase(volumes[3]).subject != first.subject


def test_a_linear_transform_counts_for_image_and_label_alike(project, scene, make_volume, make_segmentation):
    volume = make_volume()
    segmentation = make_segmentation(volume, {"liver": A})
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    for node in (volume, segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
    case = project.addCase(volume, segmentation)
    assert (label_of(project, case)[A] == 1).all() and np.count_nonzero(label_of(project, case)) == 18
    assert read_image(project.file(case.image)).geometry.is_close(Geometry((6, 8, 10), turn @ OBLIQUE))
    scene.Clear(0)
    volume, segmentation = project.openCase(case)
    array = slicer.util.arrayFromSegmentBinaryLabelmap(
        segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.count_nonzero(array) == 18, "what was drawn lies on the image"


def test_a_surface_becomes_voxels(project, make_volume, make_segmentation):
    volume = make_volume((20, 20, 20), affine=np.eye(4))
    node = make_segmentation(volume, {"liver": np.s_[5:15, 5:15, 5:15]})
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node.GetSegmentation().RemoveRepresentation("Binary labelmap")
    case = project.addCase(volume, node)
    assert 700 < case.voxels["liver"] <= 1000
    assert [each.name for each in read_segments(project.file(case.segmentation))] == ["liver"]


def test_cancelling_leaves_the_project_as_it_was(project, make_volume, make_segmentation, monkeypatch):
    monkeypatch.setattr(slicer.app, "processEvents", project.cancel)
    volume = make_volume()
    with pytest.raises(RunCancelled):
        project.addCase(volume, make_segmentation(volume, {"liver": A}))
    assert project.cases == () and list((project.path / "cases").iterdir()) == []


def test_a_large_volume_never_holds_the_application_long(project, make_segmentation, monkeypatch):
    volume = slicer.util.addVolumeFromArray(
        np.random.default_rng(0).integers(-1000, 1000, (200, 512, 512)).astype(np.int16))
    segmentation = make_segmentation(volume, {f"segment {number}": np.s_[40 * number:40 * number + 30, 100:300, 100:400]
                                              for number in range(3)})
    pauses, last = [], [time.perf_counter()]

    def pump():
        now = time.perf_counter()
        pauses.append(now - last[0])
        last[0] = now

    monkeypatch.setattr(slicer.app, "processEvents", pump)
    project.addCase(volume, segmentation)
    assert len(pauses) > 20 and np.quantile(pauses, 0.98) < 0.1 and max(pauses) < 0.5


#
# Folders
#


@pytest.fixture
def images(tmp_path):
    import SimpleITK

    folder = tmp_path / "images of <b>patients</b>"
    for name in ("a.nii.gz", "sub/b.nrrd", "sub/c.seg.nrrd"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = SimpleITK.GetImageFromArray(np.random.default_rng(1).integers(0, 99, (4, 6, 8)).astype(np.int16))
        SimpleITK.WriteImage(image, str(folder / name))
    return folder


def write_series(folder, series, patient, size=3):
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(size):
        data = pydicom.Dataset()
        data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = patient, f"{series}.9", series
        data.SOPInstanceUID, data.SOPClassUID = generate_uid(), "1.2.840.10008.5.1.4.1.1.2"
        data.Modality, data.SeriesDescription, data.InstanceNumber = "CT", f"series {series}", number + 1
        data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 6, 8, 16, 16, 15
        data.PixelRepresentation, data.SamplesPerPixel, data.PhotometricInterpretation = 1, 1, "MONOCHROME2"
        data.PixelSpacing, data.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient, data.RescaleSlope, data.RescaleIntercept = [0, 0, 2 * number], 1, 0
        data.PixelData = (np.arange(48, dtype=np.int16) + number).tobytes()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
            data.SOPClassUID, data.SOPInstanceUID)
        data.save_as(folder / f"{series}-{number}.dcm", enforce_file_format=True)


@pytest.fixture
def dicom(monkeypatch):
    """A stand-in for Slicer's DICOM database with the methods of ctkDICOMDatabase that are called."""
    import pydicom

    files: dict[str, list[str]] = {}

    def value(file, tag):
        group, element = tag.split(",")
        found = pydicom.dcmread(file, stop_before_pixels=True).get((int(group, 16), int(element, 16)))
        return "" if found is None else str(found.value)

    database = SimpleNamespace(isOpen=True, filesForSeries=lambda uid: tuple(files.get(uid, ())), fileValue=value,
                               instanceValue=lambda uid, tag: "", files=files)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    return database


def test_images_of_a_folder_stay_where_they_are(project, images):
    added = project.addImages(images)
    assert [case.source.name for case in added.cases] == ["a.nii.gz", "b.nrrd"] and added.skipped == []
    assert {(case.role, case.state, case.segmentation) for case in added.cases} == {("unlabelled", "unannotated", None)}
    assert project.file(added.cases[0].image) == images / "a.nii.gz"
    assert not (project.path / "cases").exists()
    assert len({case.subject for case in added.cases}) == 2
    again = project.addImages([images / "a.nii.gz", images / "sub"])
    assert again.cases == [] and all("already, as case-000" in reason for _name, reason in again.skipped)
    assert load_dataset(project.writeDataset("pretraining")).cases("unlabeled")[0].images == (images / "a.nii.gz",)
    assert project.makeThumbnails() == {} and project.thumbnail("case-0002").is_file()


def test_images_inside_of_the_project_move_with_it(project, images, tmp_path):
    images.rename(project.path / "images")
    case = project.addImages(project.path).cases[0]
    assert case.image == "images/a.nii.gz"
    project.close()
    project.path.rename(tmp_path / "moved")
    with Project(tmp_path / "moved") as moved:
        assert moved.file(case.image).is_file()


def test_images_that_the_project_has_copied_are_not_found_as_new_ones(project, add, images):
    add({"liver": A})
    images.rename(project.path / "images")
    assert len(project.addImages(project.path).cases) == 2


def test_a_damaged_image_gets_no_picture_and_says_why(project, images):
    (images / "a.nii.gz").write_bytes(b"nonsense")
    project.addImages(images)
    problems = project.makeThumbnails()
    assert list(problems) == ["case-0001"] and "a.nii.gz" in problems["case-0001"]


def test_nothing_found_is_told(project, tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        project.addImages(tmp_path / "nowhere")


def test_every_series_of_a_dicom_folder_is_a_case(project, tmp_path, dicom):
    write_series(tmp_path / "one", "1.2.3", "DOE")
    write_series(tmp_path / "two", "1.2.4", "DOE")
    write_series(tmp_path / "two", "1.2.5", "ROE")
    added = project.addImages([tmp_path / "one", tmp_path / "two"])
    assert [case.subject for case in added.cases] == ["subject-0001", "subject-0001", "subject-0002"]
    assert [case.modality for case in added.cases] == ["CT"] * 3
    assert project.file(added.cases[0].image) == tmp_path / "one"
    assert added.cases[1].image == "cases/case-0002/dicom", "series that share a folder are taken apart"
    assert all(read_image(project.file(case.image)).geometry.shape == (3, 6, 8) for case in added.cases)


def test_series_of_the_dicom_database_are_added_once(project, tmp_path, dicom):
    write_series(tmp_path / "one", "1.2.3", "DOE")
    write_series(tmp_path / "two", "1.2.4", "DOE")
    write_series(tmp_path / "two", "1.2.5", "")
    for folder, series in (("one", "1.2.3"), ("two", "1.2.4"), ("two", "1.2.5")):
        dicom.files[series] = sorted(map(str, (tmp_path / folder).glob(f"{series}-*.dcm")))
    dicom.files["1.2.6"] = [str(tmp_path / "gone.dcm")]
    added = project.addDicom(["1.2.3", "1.2.4", "1.2.5", "1.2.6", "1.2.7"], role="training")
    assert [case.image for case in added.cases] == [
        str(tmp_path / "one"), "cases/case-0002/dicom", "cases/case-0003/dicom"]
    assert [case.subject for case in added.cases] == ["subject-0001", "subject-0001", "subject-0002"]
    assert [name for name, _reason in added.skipped] == ["1.2.6", "1.2.7"]
    assert project.addDicom("1.2.3").cases == []
    assert project.addImages(tmp_path / "one").cases == [], "the same series, found in its folder"
    with pytest.raises(ValueError, match="one side only"):
        project.setRole("case-0001", "test")
    dicom.files.clear()  # a database of another computer
    volume, segmentation = project.openCase("case-0002")
    assert slicer.util.arrayFromVolume(volume).shape == (3, 6, 8)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_a_series_that_the_database_knows_is_loaded_as_the_dicom_module_does(
        project, tmp_path, dicom, make_volume, monkeypatch):
    """DICOMLib is a part of the application; here is its one function that is called."""
    write_series(tmp_path / "one", "1.2.3", "DOE")
    dicom.files["1.2.3"] = sorted(map(str, (tmp_path / "one").iterdir()))
    project.addDicom("1.2.3")
    utils = SimpleNamespace(loadSeriesByUID=lambda uids: [make_volume((3, 6, 8), name=uids[0]).GetID()])
    monkeypatch.setitem(sys.modules, "DICOMLib", SimpleNamespace(DICOMUtils=utils))
    assert project.openCase("case-0001")[0].GetName() == "1.2.3"


@pytest.mark.parametrize(("values", "subjects"), [
    ({"a": {"0010,0020": "DOE"}, "b": {"0010,0020": "DOE "}}, 1), ({"a": {"0010,0020": "DOE"}, "b": {}}, 2),
    ({"a": {"0020,000D": "1.9"}, "b": {"0020,000D": "1.9"}}, 1), ({"a": {}, "b": {}}, 2),
    ({"a": {"0010,0020": "DOE"}, "b": {"0010,0020": "ROE", "0020,000D": "1.9"}}, 2)])
def test_who_is_who_among_volumes_is_asked_of_the_dicom_database(project, dicom, make_volume, values, subjects):
    dicom.instanceValue = lambda uid, tag: values[uid].get(tag, "")
    for size, uid in enumerate(("a", "b"), 6):
        volume = make_volume((size, 8, 10))
        volume.SetAttribute("DICOM.instanceUIDs", f"{uid} {uid}.2")
        project.addCase(volume)
    assert len({case.subject for case in project.cases}) == subjects


def test_a_series_that_is_in_the_project_from_the_scene_is_known_in_the_database(
        project, tmp_path, dicom, make_volume):
    write_series(tmp_path / "one", "1.2.3", "DOE")
    dicom.files["1.2.3"] = sorted(map(str, (tmp_path / "one").iterdir()))
    dicom.instanceValue = lambda uid, tag: {"0020,000E": "1.2.3", "0010,0020": "DOE"}.get(tag, "")
    volume = make_volume()
    volume.SetAttribute("DICOM.instanceUIDs", "a")
    project.addCase(volume)
    assert "already, as case-0001" in project.addDicom("1.2.3").skipped[0][1]


def test_without_a_database_that_is_told(project, monkeypatch):
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(isOpen=False), raising=False)
    with pytest.raises(ValueError, match="database is not open"):
        project.addDicom("1.2.3")


def test_thousands_of_images_are_added_in_seconds(project, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(3000):
        (folder / f"{number}.png").touch()
    start = time.perf_counter()
    assert len(project.addImages(folder).cases) == 3000
    assert time.perf_counter() - start < 20
    start = time.perf_counter()
    project.setRole([case.id for case in project.cases[:1500]], "training")
    assert time.perf_counter() - start < 3
    assert isinstance(project.file(project.cases[7].image), Path)
