"""Cases of a project come from folders and from the DICOM database, without being copied."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from MedMAETrainLib.Project import Project

from medmae.datasets import load_dataset
from medmae.errors import BadInput
from medmae.volumes import read_image

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


@pytest.mark.alone
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
