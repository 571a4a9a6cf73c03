"""Segmentations are written as Slicer writes them, but without holding the event loop."""

from __future__ import annotations

import time

import numpy as np
import pytest
import slicer
import vtk
from MedMAETrainLib.SegmentationWriter import writeSegmentation
from train_fixtures import A, B, C

from medmae.volumes import read_segments


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


def _cropped(labelmap):
    """The part of a labelmap around what is drawn."""
    part, clip, matrix = slicer.vtkOrientedImageData(), vtk.vtkImageClip(), vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    clip.SetInputData(labelmap)
    clip.SetOutputWholeExtent(1, 5, 2, 6, 1, 4)
    clip.ClipDataOn()
    clip.Update()
    part.DeepCopy(clip.GetOutput())
    part.SetGeometryFromImageToWorldMatrix(matrix)
    return part


def test_layers_on_several_grids_are_left_to_slicer(make_volume, make_segmentation, tmp_path):
    volume = make_volume()
    other = make_volume((12, 8, 10), affine=np.diag([1.0, 1, 2, 1]))
    node = make_segmentation(volume, {"a": A})
    identity = node.GetSegmentation().AddEmptySegment("", "b")
    mask = np.zeros((12, 8, 10), np.uint8)
    mask[2:9, 2:6, 2:6] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identity, other)
    writeSegmentation(tmp_path / "x.seg.nrrd", node, lambda: None)
    again = loaded(tmp_path / "x.seg.nrrd")
    assert drawn(again, "a", volume).sum() and drawn(again, "b", other).sum()


def test_a_file_that_cannot_be_written_is_explained(make_volume, make_segmentation, tmp_path):
    node = make_segmentation(make_volume(), {"a": A})
    with pytest.raises(OSError, match="nowhere"):
        writeSegmentation(tmp_path / "nowhere" / "x.seg.nrrd", node, lambda: None)


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
