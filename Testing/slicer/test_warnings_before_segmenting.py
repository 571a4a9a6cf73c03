"""What speaks against a model for an image is told before anything is computed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE
from panel_fixtures import LABELS, model_info


@pytest.fixture
def info():
    from medmae.models import ModelInfo

    return ModelInfo(
        name="abdomen", task="segmentation", method="gl-mae", preset="tiny", spatial_dims=3, input_size=[16, 16, 16],
        architecture={"name": "none", "arguments": {"channels": 1, "classes": 2}}, modality="MR",
        channels=[{"name": "T1", "modality": "MR"}], intensity={"kind": "robust"},
        labels=[{"name": "background", "value": 0}, {"name": "liver", "value": 1}],
        training={"ranges": {"spacing_mm": [[2.8, 0.6, 0.8], [3.2, 0.8, 1.0]], "shape": [[4, 4, 4], [60, 60, 60]],
                             "percentiles": [{"0.5": [-300, -200], "50": [-10, 10], "99.5": [200, 300]}]}})


def _kinds(volumes, info, roi=None):
    from MedMAESegmentLib.ImageWarnings import imageWarnings

    return {warning.kind: warning.text for warning in imageWarnings(volumes, info, roi)}


def test_an_image_like_those_of_the_training_has_none(make_volume, info):
    assert _kinds([make_volume((20, 24, 28))], info) == {}


def test_one_volume_for_several_channels_is_told(make_volume, info):
    info = dataclasses.replace(info, channels=[{"name": name} for name in ("T1", "T2", "FLAIR")], training={},
                               architecture={"name": "none", "arguments": {"channels": 3, "classes": 2}})
    one, other = make_volume((20, 24, 28), name="one"), make_volume((20, 24, 28), name="other")
    text = _kinds([one, other, one], info)["channels"]
    assert text.startswith("one is chosen for T1, FLAIR, but the model abdomen was trained with another image for each")
    assert "channels" not in _kinds([one, other, make_volume((20, 24, 28))], info)


def test_the_panel_tells_that_one_volume_is_chosen_twice(open_panel, make_volume, installed, fake_worker):
    one, other = make_volume(name="first"), make_volume(name="second")
    installed(model_info("Brain", labels=LABELS, channels=["T1", "T2"]))
    panel = open_panel("MedMAESegment")
    panel.logic.worker = fake_worker
    selector = panel._volumePage._channels._rows[1][1]
    selector.setCurrentNode(one)
    panel._volumePage._warnings.refresh()
    text = "first is chosen for T1, T2, but the model Brain was trained with another image for each."
    assert text in panel.ui.warningsLabel.text
    assert [question.startswith(text) for question in panel._volumePage._warnings.questions()] == [True]
    selector.setCurrentNode(other)
    panel._volumePage._warnings.refresh()
    assert text not in panel.ui.warningsLabel.text


@pytest.mark.parametrize("where", ["node", "hierarchy", "quantity"])
def test_another_modality_is_told_wherever_it_is_known_from(make_volume, info, where):
    node = make_volume((20, 24, 28))
    if where == "node":
        node.SetAttribute("DICOM.Modality", "CT")
    elif where == "hierarchy":
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        hierarchy.SetItemAttribute(hierarchy.CreateItem(hierarchy.GetSceneItemID(), node), "DICOM.Modality", "CT")
    else:
        units = slicer.vtkCodedEntry()
        units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
        node.SetVoxelValueUnits(units)
    assert "is of the modality CT, but the model abdomen was trained on MR" in _kinds([node], info)["modality"]


class DicomDatabase:
    """As ctkDICOMDatabase: `isOpen` is a property, values are texts, and "" where there is none."""

    def __init__(self, isOpen=True, **files):
        self.isOpen, self.files = isOpen, files
        self.asked = []

    def fileForInstance(self, instance):
        return f"/dicom/{instance}" if instance in self.files else ""

    def fileValue(self, file, tag):
        return self.files.get(file.rpartition("/")[2], {}).get(tag, "")

    def instanceValue(self, instance, tag):
        self.asked.append(instance)
        return self.fileValue(self.fileForInstance(instance), tag)


@pytest.mark.parametrize(("database", "instances", "modality"), [
    (DicomDatabase(one={"0008,0060": "CT"}), "one two", "CT"),
    (DicomDatabase(one={"0008,0060": "MR"}), "one", None),
    (DicomDatabase(other={"0008,0060": "CT"}), "one", None),  # removed from the database since
    (DicomDatabase(one={}), "one", None),
    (DicomDatabase(isOpen=False, one={"0008,0060": "CT"}), "one", None),
    (DicomDatabase(one={"0008,0060": "CT"}), None, None),  # a volume that does not come from DICOM files
    (DicomDatabase(one={"0008,0060": "CT"}), "", None),
    (None, "one", None),
])
def test_of_volumes_from_dicom_files_the_database_tells(make_volume, info, monkeypatch, database, instances, modality):
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    node = make_volume((20, 24, 28))
    if instances is not None:
        node.SetAttribute("DICOM.instanceUIDs", instances)
    found = _kinds([node], info)
    assert ("modality" in found) == (modality is not None)
    assert modality is None or f"is of the modality {modality}" in found["modality"]
    assert database is None or len(database.asked) <= 1, "one file of a series is enough"


def test_a_closed_database_does_not_hide_what_the_node_says(make_volume, info, monkeypatch):
    monkeypatch.setattr(slicer, "dicomDatabase", DicomDatabase(isOpen=False), raising=False)
    node = make_volume((20, 24, 28))
    node.SetAttribute("DICOM.instanceUIDs", "one")
    node.SetAttribute("DICOM.Modality", "CT")
    assert "modality" in _kinds([node], info)


def test_the_same_modality_under_another_name_is_none(make_volume, info):
    node = make_volume((20, 24, 28))
    node.SetAttribute("DICOM.Modality", "MR")
    assert _kinds([node], info) == {}


def test_other_voxels_another_size_and_other_intensities_are_told(make_volume, info):
    node = make_volume((20, 24, 80), affine=OBLIQUE @ np.diag([1, 3, 1, 1]))
    slicer.util.arrayFromVolume(node)[...] += 4000
    found = _kinds([node], info)
    assert set(found) == {"spacing", "size", "intensity"}
    assert "3 x 0.7 x 2.7 mm" in found["spacing"]


def test_more_memory_than_is_free_is_told_in_numbers(make_volume, info, monkeypatch):
    import medmae.inference.memory

    monkeypatch.setattr(medmae.inference.memory, "available_bytes", lambda: 10_000_000)
    assert "only 10 MB are free" in _kinds([make_volume((20, 24, 28))], info)["memory"]


def test_a_rotated_region_is_said_to_be_a_box(make_volume, info, scene):
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    region.SetXYZ(OBLIQUE[:3, 3])
    region.SetSize(10, 20, 30)
    assert "region" not in _kinds([make_volume((20, 24, 28))], info, region)
    turn = np.eye(4)
    turn[:3, 3] = OBLIQUE[:3, 3]
    turn[:2, :2] = [[0, -1], [1, 0]]
    region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
    assert "region" not in _kinds([make_volume((20, 24, 28))], info, region), "a quarter turn is a box still"
    turn[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turn))
    assert "20 x 22 x 30 mm" in _kinds([make_volume((20, 24, 28))], info, region)["region"]


def test_a_region_that_misses_the_volume_or_has_no_size_is_told(make_volume, info, scene):
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    volume = make_volume((20, 24, 28), name="CT")
    region.SetXYZ(OBLIQUE[:3, 3])
    region.SetSize(0, 0, 0)
    assert "Region has no size" in _kinds([volume], info, region)["region"]
    region.SetSize(10, 20, 30)
    region.SetXYZ(0, 0, 5000)
    assert _kinds([volume], info, region)["region"].startswith("The region Region misses the volume CT")
    from MedMAESegmentLib.Region import boxInVolume

    with pytest.raises(ValueError, match="misses the volume CT"):
        boxInVolume(region, volume)


def test_a_region_under_a_transform_that_does_not_count_is_where_it_lies_on_the_scan(make_volume, scene):
    from MedMAESegmentLib.Region import boxOfRoi

    volume, transform = make_volume(), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shear = np.array([[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 100], [0, 0, 0, 1.0]])
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shear))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    region = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    region.SetXYZ(0, 0, 100)
    region.SetSize(10, 20, 30)
    np.testing.assert_allclose(boxOfRoi(region, volume), [-10, 10, -10, 10, -15, 15])


def test_looking_imports_nothing_heavy():
    look = "test_an_image_like_those_of_the_training_has_none"  # in a process of its own: others import what they want
    code = ("import sys, pytest; failed = pytest.main(['-q', sys.argv[1]]); "
            "sys.exit(str({'torch', 'monai'} & set(sys.modules)) if {'torch', 'monai'} & set(sys.modules) else failed)")
    done = subprocess.run([sys.executable, "-c", code, f"{__file__}::{look}"], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_what_the_engine_will_refuse_is_told_with_the_name_of_the_volume(make_volume, info, scene):
    from medmae.errors import BadInput

    vast = make_volume((6, 8, 10), affine=np.diag([1e9, 1.0, 1.0, 1.0]), name="vast")
    with pytest.raises(BadInput, match="^The volume vast measures 6 x 8 x 1e"):
        _kinds([vast], dataclasses.replace(info, spacing_mm=[3.0, 1.0, 1.0]))
    picture = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(picture, np.zeros((1, 24, 28, 3), np.uint8))
    with pytest.raises(BadInput, match="^The volume photo is a 2-D image"):
        _kinds([picture], info)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_image_without_a_single_number_is_told(make_volume, info, ranges):
    info = info if ranges else dataclasses.replace(info, training={})
    node = make_volume((20, 24, 28), dtype="float32", name="broken")
    voxels = slicer.util.arrayFromVolume(node)
    voxels[:10] = np.nan
    assert _kinds([node], info) == {}
    voxels[...] = np.nan
    assert "broken holds no intensities" in _kinds([node], info)["intensity"]
