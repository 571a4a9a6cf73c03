"""Segmentations are written as Slicer writes them, but without holding the event loop."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
import vtk
from MedMAESegmentLib.SegmentationFile import SegmentationFile
from MedMAESegmentLib.SegmentationWriter import writeSegmentation
from train_fixtures import A, B, C
from vtk.util.numpy_support import vtk_to_numpy

from medmae.volumes import read_image, read_segments


def loaded(path):
    """The file as Slicer reads it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node, True)
    return node


def drawn(node, name, volume):
    identity = node.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume)


@pytest.mark.parametrize("collapsed", [False, True])
@pytest.mark.parametrize("boxes", [
    {"a": A}, {"a": A, "b": B}, {"a": A, "b": A, "c": B}, {"a": A, "b": A, "c": A}, {"a": None, "b": A, "c": None},
    {"a": A, "b": B, "c": A, "d": None, "e": C}, {"a": None}])
def test_slicer_reads_what_was_drawn(make_volume, make_segmentation, tmp_path, boxes, collapsed):
    volume = make_volume()
    node = make_segmentation(volume, boxes, {"a": (0.25, 0.5, 0.75)})
    segmentation = node.GetSegmentation()
    segmentation.GetNthSegment(0).SetTag("Segmentation.Status", "inprogress")
    if collapsed and boxes["a"] is not None:  # Slicer (5.12) moves what is drawn when the first segment is empty
        segmentation.CollapseBinaryLabelmaps(False)
    before = [(segmentation.GetNthSegmentID(number), segmentation.GetNthSegment(number).GetLabelValue())
              for number in range(len(boxes))]
    writeSegmentation(tmp_path / "x.seg.nrrd", node, lambda: None)
    again = loaded(tmp_path / "x.seg.nrrd")
    for name, box in boxes.items():
        expected = np.zeros((6, 8, 10), np.uint8)
        if box is not None:
            expected[box] = 1
        np.testing.assert_array_equal(drawn(again, name, volume), expected)
    found = again.GetSegmentation()
    assert [found.GetNthSegmentID(number) for number in range(len(boxes))] == [identity for identity, _value in before]
    assert found.GetNthSegment(0).GetColor() == (0.25, 0.5, 0.75)
    status = vtk.reference("")
    assert found.GetNthSegment(0).GetTag("Segmentation.Status", status) and str(status) == "inprogress"
    assert [(segmentation.GetNthSegmentID(number), segmentation.GetNthSegment(number).GetLabelValue())
            for number in range(len(boxes))] == before
    assert list(boxes) == [segment.name for segment in read_segments(tmp_path / "x.seg.nrrd")]
    assert [path.name for path in tmp_path.iterdir()] == ["x.seg.nrrd"]


def test_a_part_of_the_image_stays_where_it_is(make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    node = make_segmentation(volume, {"a": A, "b": A})
    labelmap = node.GetSegmentation().GetSegment(
        node.GetSegmentation().GetSegmentIdBySegmentName("b")).GetRepresentation("Binary labelmap")
    labelmap.DeepCopy(_cropped(labelmap))
    assert labelmap.GetExtent() == (1, 5, 2, 6, 1, 4)
    writeSegmentation(tmp_path / "x.seg.nrrd", node, lambda: None)
    again = loaded(tmp_path / "x.seg.nrrd")
    for name in ("a", "b"):
        assert drawn(again, name, volume).sum() == 18 and drawn(again, name, volume)[A].all()


def _cropped(labelmap, extent=(1, 5, 2, 6, 1, 4)):
    """The part of a labelmap around what is drawn."""
    part, clip, matrix = slicer.vtkOrientedImageData(), vtk.vtkImageClip(), vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    clip.SetInputData(labelmap)
    clip.SetOutputWholeExtent(*extent)
    clip.ClipDataOn()
    clip.Update()
    part.DeepCopy(clip.GetOutput())
    part.SetGeometryFromImageToWorldMatrix(matrix)
    return part


@pytest.mark.parametrize("first", [A, None])
def test_what_lies_on_several_grids_is_put_on_one_as_slicer_does(make_volume, make_segmentation, tmp_path, first):
    volume = make_volume()
    other = make_volume((12, 8, 10), affine=np.diag([1.0, 1, 2, 1]))
    node = make_segmentation(volume, {"a": first, "b": A, "c": B})
    identity = node.GetSegmentation().AddEmptySegment("", "d")
    mask = np.zeros((12, 8, 10), np.uint8)
    mask[2:9, 2:6, 2:6] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identity, other)
    writeSegmentation(tmp_path / "x.seg.nrrd", node, lambda: None)
    again = loaded(tmp_path / "x.seg.nrrd")
    if first is None:  # Slicer's writer moves what is drawn then, so that it is no measure
        node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(0))
        assert not drawn(again, "a", volume).any()
    slicersNode = writtenBySlicer(node, tmp_path / "y.seg.nrrd")
    for name, grid in (("b", volume), ("c", volume), ("d", other)):
        assert drawn(again, name, grid).any()
        np.testing.assert_array_equal(drawn(again, name, grid), drawn(slicersNode, name, grid))


def writtenBySlicer(node, path):
    """The segmentation after Slicer's writer and reader."""
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    return loaded(path)


@pytest.mark.parametrize("boxes", [
    {"a": A, "b": B}, {"a": A, "b": A, "c": B}, {"a": None, "b": A, "c": B}, {"a": None, "b": A, "c": A}])
def test_a_result_of_a_batch_covers_the_whole_image(make_volume, make_segmentation, tmp_path, boxes):
    volume = make_volume()
    node = make_segmentation(volume, boxes)
    for name in ("b", "c"):  # as after drawing in the Segment Editor
        segment = node.GetSegmentation().GetSegment(node.GetSegmentation().GetSegmentIdBySegmentName(name))
        if segment is not None and node.GetSegmentation().GetNumberOfLayers() > 1:
            segment.GetRepresentation("Binary labelmap").DeepCopy(_cropped(segment.GetRepresentation(
                "Binary labelmap"), (1, 8, 2, 6, 1, 4)))
    file = SegmentationFile(tmp_path / "new" / "x.seg.nrrd", node, volume)
    for number in range(node.GetSegmentation().GetNumberOfSegments()):  # what is drawn meanwhile is not in the file
        labelmap = node.GetSegmentation().GetNthSegment(number).GetRepresentation("Binary labelmap")
        labelmap.GetPointData().GetScalars().Fill(0)
    path = file.result() if file.wait() else None
    assert path == tmp_path / "new" / "x.seg.nrrd"
    assert read_image(path).geometry.shape == (6, 8, 10)
    again = loaded(path)
    for name, box in boxes.items():
        expected = np.zeros((6, 8, 10), np.uint8)
        if box is not None:
            expected[box] = 1
        np.testing.assert_array_equal(drawn(again, name, volume), expected)


def test_more_segments_than_a_byte_can_number(make_volume, scene, tmp_path):
    volume = make_volume((6, 8, 10))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    labels = np.zeros((6, 8, 10), np.int16)
    labels.flat[:300] = np.arange(1, 301)
    oriented = slicer.vtkOrientedImageData()
    oriented.SetExtent(0, 9, 0, 7, 0, 5)
    oriented.AllocateScalars(vtk.VTK_SHORT, 1)
    vtk_to_numpy(oriented.GetPointData().GetScalars())[:] = labels.ravel()
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    oriented.SetGeometryFromImageToWorldMatrix(matrix)
    for number in range(300):
        segment = slicer.vtkSegment()
        segment.SetName(f"s{number}")
        segment.SetLabelValue(number + 1)
        segment.AddRepresentation("Binary labelmap", oriented)
        node.GetSegmentation().AddSegment(segment)
    writeSegmentation(tmp_path / "x.seg.nrrd", node, lambda: None)
    again = loaded(tmp_path / "x.seg.nrrd")
    for number in (0, 254, 255, 299):
        assert np.flatnonzero(drawn(again, f"s{number}", volume)).tolist() == [number]


def test_a_file_that_cannot_be_written_is_explained(make_volume, make_segmentation, tmp_path):
    node = make_segmentation(make_volume(), {"a": A})
    (tmp_path / "nowhere").write_text("")
    with pytest.raises(OSError, match="nowhere"):
        writeSegmentation(tmp_path / "nowhere" / "x.seg.nrrd", node, lambda: None)


@pytest.mark.alone
def test_the_event_loop_is_never_held_for_long(make_volume, scene, tmp_path):
    shape = (100, 512, 512)
    volume = make_volume(shape)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for number in range(3):
        identity = node.GetSegmentation().AddEmptySegment("", f"segment {number}")
        mask = np.zeros(shape, np.uint8)
        mask[10 + 25 * number:30 + 25 * number, 100:400, 100:400] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identity, volume)
    turns, last = [], [time.perf_counter()]

    def between():
        turns.append(time.perf_counter() - last[0])
        last[0] = time.perf_counter()

    writeSegmentation(tmp_path / "x.seg.nrrd", node, between)
    between()
    assert sorted(turns)[-2] < 0.1  # a single longer turn is that of a busy machine


@pytest.mark.alone
def test_layers_of_a_large_result_are_copied_without_holding_the_event_loop(make_volume, make_segmentation, tmp_path):
    middle = np.s_[20:180, 100:400, 100:400]
    volume = make_volume((200, 512, 512), dtype="uint8")
    node = make_segmentation(volume, {"empty": None, "a": middle, "b": middle, "c": middle})
    assert node.GetSegmentation().GetNumberOfLayers() >= 3
    turns, last = [], [time.perf_counter()]

    def between():
        turns.append(time.perf_counter() - last[0])
        last[0] = time.perf_counter()

    file = SegmentationFile(tmp_path / "x.seg.nrrd", node, volume, between)
    between()
    while not file.wait(0.01):
        between()
    assert sorted(turns)[-3] < 0.1, "single longer ones are those of a busy machine"
    again = loaded(file.result())
    assert [drawn(again, name, volume).sum(dtype=int) for name in ("empty", "a", "b", "c")] == [0] + [160 * 300**2] * 3
