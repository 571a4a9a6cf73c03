"""What Slicer's DICOM export needs of a result is there, and the engine's own DICOM segmentation says the same."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
import slicer
from conftest import ROOT

sys.path.append(str(ROOT / "Testing" / "unit"))
hd = pytest.importorskip("highdicom")
STUDY = {"PatientName": "Doe^Jane", "PatientID": "42", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}


@pytest.fixture
def logic(scripting_models, tmp_path, monkeypatch):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic
    from MedMAESegmentLib.WorkerSession import WorkerSession

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(scripting_models, tmp_path / "home" / "models")
    logic = SegmentLogic()
    logic.worker = WorkerSession()
    yield logic
    logic.worker.close()


@pytest.fixture
def series(tmp_path):
    """An oblique CT series in a folder."""
    from test_volumes_dicom import write_series
    from volume_builders import rotation

    array = np.random.default_rng(0).integers(0, 2000, (12, 20, 24)).astype(np.int16)
    return write_series(tmp_path / "ct", directions=rotation((0.2, -0.1, 0.3)), array=array, **STUDY)


@pytest.fixture
def loaded(series, scene):
    """The series as Slicer loads it: a volume in the study of its patient, which knows its files."""
    from medmae.volumes import read_image

    image = read_image(series)
    volume = slicer.util.addVolumeFromArray(image.array[0], slicer.util.vtkMatrixFromArray(image.geometry.affine), "CT")
    import pydicom

    files = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(file.SOPInstanceUID for file in files))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe^Jane"), "baseline")
    hierarchy.CreateItem(study, volume)
    return volume, hierarchy, study


def _exported(node, volume, scene):
    """(k, j, i): what Slicer hands to an exporter, on the grid of the reference volume."""
    labelmap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    logic = slicer.modules.segmentations.logic()
    assert logic.ExportAllSegmentsToLabelmapNode(node, labelmap, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY)
    array = slicer.util.arrayFromVolume(labelmap)
    assert array.shape == slicer.util.arrayFromVolume(volume).shape
    return array


def test_a_result_has_what_slicers_dicom_export_asks_for(logic, loaded, scene):
    volume, hierarchy, study = loaded
    node = logic.segment(volume, "abdomen", device="cpu")
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    reference = node.GetNodeReference(role)
    assert reference is volume and len(reference.GetAttribute("DICOM.instanceUIDs").split()) == 12
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfLayers() == 1, "segments that share a layer cannot overlap"
    assert segmentation.GetSourceRepresentationName() == "Binary labelmap"
    for index in range(segmentation.GetNumberOfSegments()):
        entry = slicer.vtkSlicerTerminologyEntry()
        text = segmentation.GetNthSegment(index).GetTerminology()
        assert slicer.vtkSlicerTerminologiesModuleLogic().DeserializeTerminologyEntry(text, entry)
        for code in (entry.GetCategoryObject(), entry.GetTypeObject()):
            assert code.GetCodingSchemeDesignator() == "SCT" and code.GetCodeValue() and code.GetCodeMeaning()
    labels = _exported(node, volume, scene)
    assert set(np.unique(labels)) == {0, 1, 2}


def test_the_engine_writes_the_same_segments_as_a_dicom_segmentation_of_the_series(
        logic, loaded, series, scene, tmp_path):
    volume, _, _ = loaded
    labels = _exported(logic.segment(volume, "abdomen", device="cpu"), volume, scene)
    command = ["segment", "--model", "abdomen", "--images", str(series), "--out", str(tmp_path / "out"),
               "--format", "dicom-seg", "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "medmae.cli", *command], check=True, capture_output=True)
    (file,) = (tmp_path / "out").rglob("*.seg.dcm")
    segmentation = hd.seg.segread(file)
    assert (segmentation.StudyInstanceUID, segmentation.FrameOfReferenceUID, segmentation.PatientID) == (
        "1.2.3", "1.2.4", "42")
    assert {str(item.ReferencedSOPInstanceUID) for item in segmentation.ReferencedSeriesSequence[
        0].ReferencedInstanceSequence} == set(volume.GetAttribute("DICOM.instanceUIDs").split())
    names = [segmentation.get_segment_description(number).segment_label for number in segmentation.segment_numbers]
    assert names == ["liver", "left kidney"]
    for number in (1, 2):
        frames = [int((frame > 0).sum()) for frame, groups in zip(
            np.atleast_3d(segmentation.pixel_array), segmentation.PerFrameFunctionalGroupsSequence, strict=True)
            if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number]
        assert sorted(frames) == sorted(int(count) for count in (labels == number).sum((1, 2)) if count)
