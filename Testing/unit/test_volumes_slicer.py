"""What MedMAE writes is read by Slicer's own MRML library, and the other way round; in a process of its own."""

import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest
from volume_builders import turned

from medmae.volumes import (
    Geometry,
    Segment,
    default_segments,
    read_image,
    read_label,
    read_segments,
    reorient,
    write_label,
)

# Not importorskip: under pytest the name "slicer" may be the folder of the module tests.
try:
    importlib.metadata.version("slicer-core")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("slicer-core is not installed", allow_module_level=True)

GRIDS = {
    "axial": Geometry.of((7, 8, 9), (3, 1, 0.8), axes="LPS", origin_mm=(90, -120, 30)),
    "sagittal": Geometry.of((7, 8, 9), (3, 1, 0.8), axes="PIR", origin_mm=(90, -120, 30)),
    "oblique": turned(Geometry.of((7, 8, 9), (2.2, 2, 2), axes="LAS", origin_mm=(90, -120, 30)), (0.16, -0.1, 0.05)),
    "single slice": Geometry.of((1, 8, 9), (5, 1, 0.8), axes="LPS"),
    "turned back": reorient(np.zeros((9, 8, 7)), Geometry.of((9, 8, 7), (1, 2, 3), axes="AIL"), "RAS")[1],
}

SCENE = """
import json, sys
import numpy as np, slicer, vtk
from types import SimpleNamespace
from vtk.util.numpy_support import vtk_to_numpy
scene = slicer.vtkMRMLScene()
application = slicer.vtkSlicerApplicationLogic()
application.SetMRMLScene(scene)
logics = {"Colors": slicer.vtkMRMLColorLogic(), "Volumes": slicer.vtkSlicerVolumesLogic(),
          "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic()}
for name, logic in logics.items():
    logic.SetMRMLScene(scene)
    logic.SetMRMLApplicationLogic(application)
    application.SetModuleLogic(name, logic)

def matrix(node_or_image, get):
    m = vtk.vtkMatrix4x4()
    getattr(node_or_image, get)(m)
    return [[m.GetElement(r, c) for c in range(4)] for r in range(4)]

def read(path, node_class, storage_class):
    node, storage = scene.AddNewNodeByClass(node_class), scene.AddNewNodeByClass(storage_class)
    storage.SetFileName(path)
    assert storage.ReadData(node) == 1, path
    return node, storage

def volume(path):
    node, _ = read(path, "vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode")
    image = node.GetImageData()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    return {"affine": matrix(node, "GetIJKToRASMatrix"), "voxels": voxels.tolist()}

def segmentation(path, again):
    node, storage = read(path, "vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode")
    result, tag = [], vtk.mutable("")
    segments = node.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        image = segment.GetRepresentation("Binary labelmap")
        extent = image.GetExtent()
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
        segment.GetTag(segment.GetTerminologyEntryTagName(), tag)
        result.append({"id": segments.GetNthSegmentID(number), "name": segment.GetName(), "color": segment.GetColor(),
                       "value": segment.GetLabelValue(), "terminology": str(tag), "extent": extent,
                       "affine": matrix(image, "GetImageToWorldMatrix"), "voxels": voxels.tolist()})
    storage.SetFileName(again)
    assert storage.WriteData(node) == 1
    return result

task = json.load(sys.stdin)
answer = {"volumes": {path: volume(path) for path in task["volumes"]},
          "segmentations": {path: segmentation(path, again) for path, again in task["segmentations"].items()}}
json.dump(answer, open(task["answer"], "w"))
"""


def labels(geometry):
    array = np.random.default_rng(0).choice([0, 2, 3, 40], geometry.shape).astype(np.uint8)
    array[0, 0, 0] = 40
    return array


SEGMENTS = [*default_segments({"liver": 2, "left kidney": 3}), Segment("lesion (new), \"x\"", 40, (0.1, 0.6, 0.9))]


@pytest.fixture(scope="module")
def in_slicer(tmp_path_factory):
    """Everything that Slicer read, in one process: (folder, answer)."""
    folder = tmp_path_factory.mktemp("slicer files with spaces")
    task = {"volumes": [], "segmentations": {}, "answer": str(folder / "answer.json")}
    for name, geometry in GRIDS.items():
        for format in ("nii.gz", "nrrd"):
            path = write_label(folder / f"{name}.{format}", labels(geometry), geometry, SEGMENTS, format)
            task["volumes"].append(str(path))
        path = write_label(folder / f"{name}.seg.nrrd", labels(geometry), geometry, SEGMENTS, "seg.nrrd")
        task["segmentations"][str(path)] = str(folder / f"{name} again.seg.nrrd")
    (folder / "scene.py").write_text(SCENE)
    done = subprocess.run([sys.executable, str(folder / "scene.py")], input=json.dumps(task), text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "answer.json").read_text())


def as_written(volume, name):
    """Slicer turns the slice order of left-handed grids (such as LAS) over while loading; turn it back."""
    voxels = np.array(volume["voxels"])
    return reorient(voxels, Geometry(voxels.shape, np.array(volume["affine"])), GRIDS[name].axes)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("format", ["nii.gz", "nrrd"])
def test_slicer_reads_label_maps_voxel_for_voxel_at_the_same_place(in_slicer, name, format):
    folder, answer = in_slicer
    voxels, geometry = as_written(answer["volumes"][str(folder / f"{name}.{format}")], name)
    np.testing.assert_array_equal(voxels, labels(GRIDS[name]))
    assert geometry.is_close(GRIDS[name], 1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_medmae_and_slicer_agree_where_the_same_file_lies(in_slicer, name):
    folder, answer = in_slicer
    for format in ("nii.gz", "nrrd"):
        path = folder / f"{name}.{format}"
        assert read_image(path).geometry.is_close(as_written(answer["volumes"][str(path)], name)[1], 1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_slicer_reads_segmentations_with_ids_names_colours_terms_and_voxels(in_slicer, name):
    folder, answer = in_slicer
    segments = answer["segmentations"][str(folder / f"{name}.seg.nrrd")]
    assert [segment["name"] for segment in segments] == [segment.name for segment in SEGMENTS]
    assert [segment["id"] for segment in segments] == [segment.name for segment in SEGMENTS]
    assert [segment["value"] for segment in segments] == [2, 3, 40]
    assert "SCT^10200004^Liver" in segments[0]["terminology"]
    assert "SCT^7771000^Left" in segments[1]["terminology"]
    for segment, expected in zip(segments, SEGMENTS, strict=True):
        np.testing.assert_allclose(segment["color"], expected.color, atol=1e-4)
        mask = (np.array(segment["voxels"]) == expected.value).astype(np.uint8)
        i0, _, j0, _, k0, _ = segment["extent"]
        here = Geometry(mask.shape, np.array(segment["affine"])).cropped((k0, j0, i0), mask.shape)
        start = np.rint(GRIDS[name].to_indices(here.origin_mm)).astype(int)
        whole = np.zeros(GRIDS[name].shape, np.uint8)
        whole[tuple(slice(a, a + size) for a, size in zip(start, mask.shape, strict=True))] = mask
        np.testing.assert_array_equal(whole, labels(GRIDS[name]) == expected.value)
        assert here.is_close(GRIDS[name].cropped(start, mask.shape), 1e-4)


@pytest.mark.parametrize("name", GRIDS)
def test_what_slicer_saves_again_is_read_with_the_same_content_on_the_same_grid(in_slicer, name):
    folder, _ = in_slicer
    path = folder / f"{name} again.seg.nrrd"
    label, segments = read_label(path), read_segments(path)
    assert label.geometry.is_close(GRIDS[name], 1e-4)
    values = {segment.name: segment.value for segment in segments}
    assert [(segment.name, segment.terminology) for segment in segments] == [
        (segment.name, segment.terminology) for segment in SEGMENTS]
    for expected in SEGMENTS:
        np.testing.assert_array_equal(label.array[0] == values[expected.name],
                                      labels(GRIDS[name]) == expected.value)
