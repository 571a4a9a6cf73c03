"""DICOM segmentations, read back with highdicom: voxels, places, names, colours, terms, references."""

from __future__ import annotations

import sys

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from test_volumes_dicom import COUNT, STEP_MM, dicom, voxels, write_series
from volume_builders import rotation

from medmae.errors import BadInput
from medmae.volumes import Segment, read_image
from medmae.volumes.dicom_seg import Algorithm, refuse_unless_dicom, write_dicom_seg
from medmae.volumes.terminology import terminology_of

hd = pytest.importorskip("highdicom")

SEGMENTS = [Segment("kidney_left", 300, (0.8, 0.4, 0.3), terminology_of("left kidney")),
            Segment("my\nthing \\ with a very long name " + "x" * 80, 7, (0.0, 1.0, 0.0)),
            Segment("absent", 9, (0.0, 0.0, 1.0))]
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "42", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}


def labels(shape, seed=0, values=(0, 300, 7)):
    return np.array(values, np.uint16)[np.random.default_rng(seed).integers(0, len(values), shape)]


def read_back(path):
    """The stored frames by segment number: {number: {place (LPS mm) of a frame: pixels}}, and the file."""
    seg = hd.seg.segread(path)
    found = {number: {} for number in seg.segment_numbers}
    for frame, groups in zip(np.atleast_3d(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns),
                             seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = groups.PlanePositionSequence[0].ImagePositionPatient
        found[number][tuple(round(float(part), 3) for part in place)] = frame
    return seg, found


def check(path, array, source, values=(300, 7, 9)):
    """Every frame lies where its plane of the label map lies and has its voxels; no plane is missing."""
    image = read_image(source)
    seg, found = read_back(path)
    lps = np.diag([-1, -1, 1])
    for number, value in enumerate(values, start=1):
        for k, plane in enumerate(array):
            place = tuple(np.round(lps @ image.geometry.to_world((k, 0, 0)), 3) + 0.0)
            frame = next((pixels for there, pixels in found[number].items()
                          if np.allclose(there, place, atol=2e-3)), np.zeros_like(plane))
            assert np.array_equal(frame == 1, plane == value), (number, k)
    cosines = np.array(seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient, float)
    assert np.allclose(cosines.reshape(2, 3), (lps @ image.geometry.direction)[:, :2].T, atol=1e-5)
    return seg


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.2, -0.1, 0.3), (1.4, 0.1, 0.2), (3.0, 0, 1.5)])
@pytest.mark.parametrize("names", [None, ["c", "a.dcm", "z.IMA", "b", "k.dcm", "d"]])
def test_a_segmentation_has_the_voxels_at_the_places_of_the_source(tmp_path, angles, names):
    folder = write_series(tmp_path / "scan", directions=rotation(angles), names=names, **PATIENT)
    array = labels(voxels().shape)
    made_by = Algorithm("liver", "1.2", "ab" * 32)
    path = write_dicom_seg(tmp_path / "out" / "a.seg.dcm", array, folder, SEGMENTS, made_by)
    seg = check(path, array, folder)
    sources = {pydicom.dcmread(file).SOPInstanceUID for file in folder.iterdir()}
    referenced = {item.ReferencedSOPInstanceUID for series in seg.ReferencedSeriesSequence
                  for item in series.ReferencedInstanceSequence}
    assert referenced == sources and seg.FrameOfReferenceUID == "1.2.4" and seg.StudyInstanceUID == "1.2.3"
    assert seg.PatientID == "42" and str(seg.PatientName) == "Doe^Jane"
    assert not list(tmp_path.rglob(".partial-*"))


def test_segments_keep_names_colours_terms_and_what_made_them(tmp_path):
    folder = write_series(tmp_path / "scan", **PATIENT)
    array = labels(voxels().shape, values=(0, 300, 7, 55))
    path = write_dicom_seg(tmp_path / "a.seg.dcm", array, folder, SEGMENTS, Algorithm("liver", "1.2", "ab" * 32))
    check(path, array, folder, (300, 7, 9, 55))
    seg = hd.seg.segread(path)
    first, second, third, fourth = (seg.get_segment_description(number) for number in (1, 2, 3, 4))
    assert (first.segment_label, fourth.segment_label) == ("kidney_left", "Label 55")
    assert second.segment_label == ("my thing with a very long name " + "x" * 80)[:64]
    assert first.segmented_property_type.value == "64033007"
    modifier = first.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert modifier.CodeMeaning == "Left"
    assert second.segmented_property_type.meaning == "Tissue"
    assert first.algorithm_identification.name == "liver" and first.algorithm_identification.version == "1.2"
    assert hd.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb() == pytest.approx(
        (204, 102, 76), abs=2)
    assert third.segment_label == "absent"


def enhanced(path, order, **tags):
    frames = []
    for place in order:
        frame, position, measures, orientation, content = (Dataset() for _ in range(5))
        position.ImagePositionPatient = [0, 0, place * STEP_MM]
        measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 9
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        content.DimensionIndexValues = [1]
        frame.PlanePositionSequence, frame.PixelMeasuresSequence = [position], [measures]
        frame.PlaneOrientationSequence, frame.FrameContentSequence = [orientation], [content]
        frames.append(frame)
    shared = Dataset()
    return dicom(path, voxels()[list(order)], storage="1.2.840.10008.5.1.4.1.1.2.1", Modality="CT",
                 NumberOfFrames=COUNT, SeriesInstanceUID=generate_uid(), PerFrameFunctionalGroupsSequence=frames,
                 SharedFunctionalGroupsSequence=[shared], **tags)


def test_the_frames_of_one_file_may_lie_in_any_order(tmp_path):
    path = enhanced(tmp_path / "enhanced.dcm", [3, 0, 5, 1, 4, 2], **PATIENT)
    array = labels(voxels().shape)
    check(write_dicom_seg(tmp_path / "a.seg.dcm", array, path, SEGMENTS, Algorithm("liver")), array, path)


def test_nothing_found_is_written_too(tmp_path):
    folder = write_series(tmp_path / "scan", **PATIENT)
    array = np.zeros(voxels().shape, np.uint8)
    check(write_dicom_seg(tmp_path / "a.seg.dcm", array, folder, SEGMENTS, Algorithm("liver")), array, folder)


def test_one_slice_is_enough(tmp_path):
    folder = write_series(tmp_path / "scan", array=voxels()[:1], **PATIENT)
    array = labels((1, *voxels().shape[1:]))
    check(write_dicom_seg(tmp_path / "a.seg.dcm", array, folder, SEGMENTS, Algorithm("liver")), array, folder)


def test_what_is_no_placed_dicom_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(BadInput, match="not DICOM"):
        refuse_unless_dicom(tmp_path / "image.nii.gz")
    plain = write_series(tmp_path / "scan")  # without a frame of reference
    with pytest.raises(BadInput, match="FrameOfReferenceUID"):
        write_dicom_seg(tmp_path / "a.seg.dcm", labels(voxels().shape), plain, SEGMENTS, Algorithm("liver"))
    chest = dicom(tmp_path / "chest.dcm", voxels()[0].astype(np.uint16), storage="1.2.840.10008.5.1.4.1.1.1.1",
                  Modality="DX", SeriesInstanceUID=generate_uid())
    with pytest.raises(BadInput, match="no place in the patient"):
        write_dicom_seg(tmp_path / "a.seg.dcm", labels((1, 5, 7)), chest, SEGMENTS, Algorithm("liver"))
    assert not (tmp_path / "a.seg.dcm").exists() and not list(tmp_path.glob(".partial-*"))


def test_without_highdicom_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(BadInput, match=r"pip install highdicom"):
        refuse_unless_dicom(tmp_path)


def test_a_real_series_goes_there_and_back(tmp_path, shared_data):
    folder = shared_data / "volumes" / "ct_abdomen_dicom"
    for file in folder.glob("*.dcm"):
        (tmp_path / file.name).symlink_to(file)
    image = read_image(tmp_path)
    array = (image.array[0] > 100).astype(np.uint8) + (image.array[0] > 300)
    segments = [Segment("bright", 1, (1, 0, 0)), Segment("brighter", 2, (0, 1, 0))]
    path = write_dicom_seg(tmp_path / "out" / "a.seg.dcm", array, tmp_path, segments, Algorithm("liver"))
    check(path, array, tmp_path, (1, 2))
