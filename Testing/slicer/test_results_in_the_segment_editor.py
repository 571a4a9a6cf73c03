"""A model's result in the segmentation that is being edited: the real Segment Editor logic, its masks, its undo."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from MedMAESegmentLib.EditorResult import EditorResult, LabelMapping

LEFT, RIGHT = np.s_[1:3, 2:5, 1:4], np.s_[3:5, 4:7, 5:9]
SHAPE = (6, 8, 10)


@pytest.fixture
def editing(scene, make_volume, make_segmentation):
    """A segmentation in a Segment Editor, and the result of a model on the same volume."""
    class Editing:
        def __init__(self, segments, result=None, volume=None):
            self.volume = volume or make_volume()
            self.node = make_segmentation(self.volume, segments)
            self.result = make_segmentation(self.volume, result or {"left": LEFT, "right": RIGHT},
                                            {"left": [1.0, 0.0, 0.0]})
            self.editor = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
            self.editor.SetAndObserveSegmentationNode(self.node)
            self.editor.SetAndObserveSourceVolumeNode(self.volume)
            self.editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)

        def segment(self, name):
            return self.node.GetSegmentation().GetSegmentIdBySegmentName(name)

        def voxels(self, name):
            return slicer.util.arrayFromSegmentBinaryLabelmap(self.node, self.segment(name), self.volume) > 0

        def apply(self, **mapping):
            return EditorResult(self.editor).apply(self.result, LabelMapping(**mapping))

    return Editing


def _mask(*boxes):
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_every_structure_goes_into_the_segment_of_its_name_which_is_added_if_it_is_not_there(editing):
    edit = editing({"left": RIGHT, "mine": LEFT})
    assert edit.apply() == ["left", "right"]
    np.testing.assert_array_equal(edit.voxels("left"), _mask(LEFT))
    np.testing.assert_array_equal(edit.voxels("right"), _mask(RIGHT))
    np.testing.assert_array_equal(edit.voxels("mine"), _mask(LEFT))
    assert edit.node.GetSegmentation().GetNumberOfSegments() == 3


def test_a_segment_that_is_added_has_colour_and_terminology_of_the_result(editing):
    edit = editing({})
    source = edit.result.GetSegmentation().GetSegment(
        edit.result.GetSegmentation().GetSegmentIdBySegmentName("left"))
    source.SetTag(source.GetTerminologyEntryTagName(), "Segmentation category~SCT^1^x~SCT^2^y~^^~Anatomic~^^~^^")
    edit.apply(structures=("left",))
    added = edit.node.GetSegmentation().GetSegment(edit.segment("left"))
    assert added.GetColor() == (1.0, 0.0, 0.0)
    assert added.GetTerminology().startswith("Segmentation category~SCT^1^x")
    assert edit.segment("right") == ""


def test_all_structures_together_go_into_one_segment(editing):
    edit = editing({"mine": None, "other": np.s_[0:1, 0:1, 0:1]})
    edit.editor.SetSelectedSegmentID(edit.segment("other"))
    assert edit.apply(intoSegment=edit.segment("mine")) == ["mine"]
    np.testing.assert_array_equal(edit.voxels("mine"), _mask(LEFT, RIGHT))
    assert edit.voxels("other").sum() == 1
    assert edit.editor.GetSelectedSegmentID() == edit.segment("other")


def test_one_structure_can_be_chosen_for_one_segment(editing):
    edit = editing({"mine": LEFT})
    edit.apply(intoSegment=edit.segment("mine"), structures=("right",))
    np.testing.assert_array_equal(edit.voxels("mine"), _mask(RIGHT))


def test_outside_of_the_mask_segment_nothing_changes(editing):
    area = np.s_[0:6, 0:8, 0:3]
    edit = editing({"left": np.s_[1:3, 2:5, 0:8], "area": area})
    edit.editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    edit.editor.SetMaskSegmentID(edit.segment("area"))
    edit.apply()
    old, inside = _mask(np.s_[1:3, 2:5, 0:8]), _mask(area)
    np.testing.assert_array_equal(edit.voxels("left"), (old & ~inside) | (_mask(LEFT) & inside))
    assert not edit.voxels("right").any()
    np.testing.assert_array_equal(edit.voxels("area"), inside)


def test_the_mask_segment_can_be_a_structure_of_the_model_itself(editing):
    area = np.s_[0:6, 0:8, 0:7]
    edit = editing({"left": area}, {"left": LEFT, "right": RIGHT})
    edit.editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    edit.editor.SetMaskSegmentID(edit.segment("left"))
    edit.apply()
    np.testing.assert_array_equal(edit.voxels("left"), _mask(LEFT))
    np.testing.assert_array_equal(edit.voxels("right"), _mask(RIGHT) & _mask(area))


@pytest.mark.parametrize("names", [("left", "right"), ("right", "left")])
def test_inside_all_segments_structures_exchange_voxels_whatever_their_order(editing, names):
    boxes = {"left": RIGHT, "right": LEFT}  # the wrong way round
    edit = editing({name: boxes[name] for name in names})
    edit.editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideAllSegments)
    edit.editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    edit.apply()
    np.testing.assert_array_equal(edit.voxels("left"), _mask(LEFT))
    np.testing.assert_array_equal(edit.voxels("right"), _mask(RIGHT))


def test_what_other_segments_have_stays_theirs_where_only_the_outside_is_editable(editing):
    taken = np.s_[1:2, 0:8, 0:10]
    edit = editing({"mine": taken})
    edit.editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    edit.editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    edit.apply()
    np.testing.assert_array_equal(edit.voxels("mine"), _mask(taken))
    np.testing.assert_array_equal(edit.voxels("left"), _mask(LEFT) & ~_mask(taken))


def test_outside_of_the_intensity_range_nothing_changes(editing, make_volume):
    volume = make_volume()
    edit = editing({"left": RIGHT}, volume=volume)
    edit.editor.SourceVolumeIntensityMaskOn()
    edit.editor.SetSourceVolumeIntensityMaskRange(0, 1000)
    edit.apply()
    editable = slicer.util.arrayFromVolume(volume) >= 0
    np.testing.assert_array_equal(edit.voxels("left"), (_mask(LEFT) & editable) | (_mask(RIGHT) & ~editable))
    np.testing.assert_array_equal(edit.voxels("right"), _mask(RIGHT) & editable)
    assert 0 < (_mask(LEFT) & editable).sum() < _mask(LEFT).sum()


@pytest.mark.parametrize("overwrites", [True, False])
def test_the_overwrite_mode_decides_what_the_other_segments_lose(editing, overwrites):
    edit = editing({"mine": LEFT})
    mode = "OverwriteAllSegments" if overwrites else "OverwriteNone"
    edit.editor.SetOverwriteMode(getattr(slicer.vtkMRMLSegmentEditorNode, mode))
    edit.apply()
    assert edit.voxels("mine").any() != overwrites


def test_undo_brings_everything_back_in_one_step(editing):
    edit = editing({"left": RIGHT})
    widget = slicer.vtkSlicerSegmentEditorLogic()
    widget.SetSegmentEditorNode(edit.editor)
    assert widget.SaveStateForUndo()
    edit.apply()
    widget.Undo()
    np.testing.assert_array_equal(edit.voxels("left"), _mask(RIGHT))
    assert edit.segment("right") == ""


def test_a_result_of_a_moved_volume_lands_where_its_anatomy_is_seen(editing, scene):
    edit = editing({"mine": None})
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    direction = slicer.util.arrayFromVTKMatrix(_ijkToRas(edit.volume))[:3, 0]
    matrix[:3, 3] = direction  # one voxel along i
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    edit.result.SetAndObserveTransformNodeID(transform.GetID())
    edit.apply(structures=("left",))
    np.testing.assert_array_equal(edit.voxels("left"), np.roll(_mask(LEFT), 1, axis=2))


def test_a_missing_segment_or_structure_is_explained_and_nothing_changes(editing):
    edit = editing({"left": RIGHT})
    with pytest.raises(ValueError, match="segment that should get the result is not there any more"):
        edit.apply(intoSegment="Segment_77")
    with pytest.raises(ValueError, match="no structure liver, only left, right"):
        edit.apply(structures=("liver",))
    np.testing.assert_array_equal(edit.voxels("left"), _mask(RIGHT))


def test_a_structure_that_was_not_found_empties_its_segment(editing):
    edit = editing({"left": RIGHT}, {"left": None})
    edit.apply()
    assert not edit.voxels("left").any()


def _ijkToRas(volume):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix
