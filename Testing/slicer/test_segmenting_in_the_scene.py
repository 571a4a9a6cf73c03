"""From a volume node to a segmentation node, through a child process that follows the run folder protocol."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest
import slicer
from conftest import OBLIQUE, voxels_left

from medmae.run_folder import process_start

BOXES = {"left": np.s_[1:3, 2:5, 1:4], "right": np.s_[3:5, 4:7, 5:9]}


@pytest.fixture
def logic(a_known_model, fake_worker):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    logic = SegmentLogic()
    logic.worker = fake_worker
    return logic


@pytest.fixture
def result_file(labels_file):
    """What the worker answers for the volume."""
    return lambda volume: labels_file(volume, BOXES.values())


def _segments(node):
    segmentation = node.GetSegmentation()
    return {segmentation.GetNthSegment(n).GetName(): segmentation.GetNthSegment(n)
            for n in range(segmentation.GetNumberOfSegments())}


def _voxels(node, name, volume):
    segment = node.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, volume)


def _mask(volume, box):
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    mask[box] = True
    return mask


def test_the_result_has_voxels_names_colours_and_reference_of_the_volume(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan("progress", f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    assert list(_segments(node)) == ["left", "right"]
    assert _segments(node)["left"].GetColor() == (1.0, 0.0, 0.0)
    for name, box in BOXES.items():
        np.testing.assert_array_equal(_voxels(node, name, volume) > 0, _mask(volume, box))
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReferenceID(role) == volume.GetID()
    assert node.GetDisplayNode() is not None
    assert "Tissue" in _segments(node)["left"].GetTerminology()


def test_the_result_remembers_what_made_it(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan(f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    assert node.GetAttribute("MedMAE.model") == "model"
    assert node.GetAttribute("MedMAE.version")
    assert node.GetAttribute("MedMAE.modelVersion")
    assert node.GetAttribute("MedMAE.date").startswith(time.strftime("%Y-"))
    assert node.GetStorageNode() is None, "the node must not point to a temporary file"


def test_the_worker_gets_the_volume_and_leaves_nothing_behind(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan(f"labels={result_file(volume)}")
    logic.segment(volume, "model", device="cpu", overlap=0.25)
    assert voxels_left(logic) == []
    assert logic.jobs == []


def test_the_segmentation_stands_beside_the_volume_in_the_subject_hierarchy(
        logic, work_plan, make_volume, result_file):
    volume = make_volume()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(item, volume)
    work_plan(f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == item


def test_the_segment_editor_node_is_set_up_and_is_one_for_the_scene(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan(f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    editor = logic.getSegmentEditorNode()
    assert editor is logic.getSegmentEditorNode()
    assert editor.GetSegmentationNode() is node
    assert editor.GetSourceVolumeNode() is volume
    assert editor.GetSelectedSegmentID() == node.GetSegmentation().GetNthSegmentID(0)


def test_segments_of_other_names_in_the_target_are_kept(logic, work_plan, make_volume, make_segmentation, result_file):
    volume = make_volume()
    target = make_segmentation(volume, {"mine": np.s_[0:1, 0:2, 0:2], "left": np.s_[5:6, 0:2, 0:2]})
    work_plan(f"labels={result_file(volume)}")
    assert logic.segment(volume, "model", target, replaceExisting=True) is target
    assert list(_segments(target)) == ["mine", "left", "right"]
    np.testing.assert_array_equal(_voxels(target, "left", volume) > 0, _mask(volume, BOXES["left"]))
    np.testing.assert_array_equal(_voxels(target, "mine", volume) > 0, _mask(volume, np.s_[0:1, 0:2, 0:2]))


def test_segments_of_the_same_name_are_kept_too_unless_their_replacement_is_asked_for(
        logic, work_plan, make_volume, make_segmentation, result_file):
    volume = make_volume()
    target = make_segmentation(volume, {"left": np.s_[5:6, 0:2, 0:2]})
    work_plan(f"labels={result_file(volume)}")
    logic.segment(volume, "model", target)
    assert list(_segments(target)) == ["left", "left 2", "right"]
    np.testing.assert_array_equal(_voxels(target, "left", volume) > 0, _mask(volume, np.s_[5:6, 0:2, 0:2]))
    np.testing.assert_array_equal(_voxels(target, "left 2", volume) > 0, _mask(volume, BOXES["left"]))


def test_under_a_transform_the_result_lies_on_the_same_voxels(logic, work_plan, scene, make_volume, result_file):
    turn = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    volume = make_volume()
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    work_plan(f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    assert node.GetTransformNodeID() == transform.GetID()
    for name, box in BOXES.items():
        np.testing.assert_array_equal(_voxels(node, name, volume) > 0, _mask(volume, box))
    labelmap = node.GetBinaryLabelmapInternalRepresentation(node.GetSegmentation().GetNthSegmentID(0))
    matrix = slicer.util.arrayFromVTKMatrix(_image_to_world(labelmap))
    np.testing.assert_array_equal(matrix[:3, :3], OBLIQUE[:3, :3])


def _image_to_world(labelmap):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return matrix


def test_saved_and_reloaded_it_is_the_same(logic, work_plan, make_volume, result_file, scene, tmp_path):
    volume = make_volume()
    work_plan(f"labels={result_file(volume)}")
    node = logic.segment(volume, "model")
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(node)
    again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage.ReadData(again, True)
    assert list(_segments(again)) == list(_segments(node))
    for name in BOXES:
        assert _segments(again)[name].GetColor() == _segments(node)[name].GetColor()
        np.testing.assert_array_equal(_voxels(again, name, volume), _voxels(node, name, volume))


def test_progress_is_told_in_order_and_in_words(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan("progress", f"labels={result_file(volume)}")
    told = []
    logic.segment(volume, "model", progressCallback=lambda fraction, message: told.append((fraction, message)))
    assert told[0] == (0.0, "Handing over the volume")
    assert (1 / 3, "Segment 1 of 3") in [(fraction, message.partition(",")[0]) for fraction, message in told]
    assert told[-1] == (1.0, "Taking over the result")
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)


@pytest.mark.alone
def test_a_blocking_call_keeps_the_application_alive(logic, work_plan, make_volume, result_file, application):
    volume = make_volume()
    work_plan("work=1", f"labels={result_file(volume)}")
    application.pumped, times = 0, []
    pump = application._pump
    slicer.app.processEvents = lambda: (pump(), times.append(time.monotonic()))
    try:
        logic.segment(volume, "model")
    finally:
        slicer.app.processEvents = pump
    gaps = sorted(b - a for a, b in zip(times, times[1:], strict=False))
    assert gaps[len(gaps) * 9 // 10] < 0.1, "single longer ones are those of a busy machine"
    assert application.pumped > 10


def test_the_childs_reason_becomes_the_exception(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunFailed

    work_plan("fail=The volume CT is sheared. Resample it first.")
    with pytest.raises(RunFailed, match="The volume CT is sheared. Resample it first."):
        logic.segment(make_volume(), "model")
    assert voxels_left(logic) == []


def test_a_worker_that_cannot_go_on_shows_its_last_output(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunFailed

    work_plan("crash")
    with pytest.raises(RunFailed, match="RuntimeError: no such library"):
        logic.segment(make_volume(), "model")


def test_a_killed_child_is_reported_as_such(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunFailed

    work_plan("die")
    with pytest.raises(RunFailed, match="too little memory"):
        logic.segment(make_volume(), "model")


def test_cancel_ends_the_job_at_once_and_the_worker_obeys(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunCancelled

    work_plan("progress", "work=60")
    job = logic.segment(make_volume(), "model", waitForCompletion=False)
    while not job.poll() and job.fraction < 0.5:
        time.sleep(0.02)
    logic.cancel()
    assert job.state == "cancelled" and job._request.state == "running"
    assert voxels_left(logic) == []
    assert logic.worker.starts == 1
    with pytest.raises(RunCancelled):
        job.wait()


def test_a_worker_that_does_not_obey_is_ended_with_all_its_processes(logic, work_plan, make_volume, tmp_path):
    work_plan(f"grandchild={tmp_path / 'pid'}", "deaf=60")
    logic.segment(make_volume(), "model", waitForCompletion=False)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.02)
    grandchild = int((tmp_path / "pid").read_text())
    logic.cancel()
    deadline = time.monotonic() + 10
    while process_start(grandchild) is not None and time.monotonic() < deadline:
        logic.worker.poll()
        time.sleep(0.02)
    assert process_start(grandchild) is None
    assert voxels_left(logic) == []


def test_cancel_from_a_progress_callback_ends_a_blocking_call(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunCancelled

    work_plan("progress", "work=60")
    with pytest.raises(RunCancelled):
        logic.segment(make_volume(), "model",
                      progressCallback=lambda fraction, _message: logic.cancel() if fraction > 0.5 else None)


def test_an_error_in_a_progress_callback_reaches_the_caller_and_ends_the_child(logic, work_plan, make_volume):
    work_plan("progress", "work=60")

    def callback(fraction, _message):
        if fraction > 0.5:
            raise ZeroDivisionError("mistake of the caller")

    with pytest.raises(ZeroDivisionError):
        logic.segment(make_volume(), "model", progressCallback=callback)
    assert voxels_left(logic) == []
    assert logic.jobs == []


def test_a_volume_removed_meanwhile_is_explained(logic, work_plan, scene, make_volume, result_file):
    from MedMAESegmentLib.FollowedJob import RunFailed

    volume = make_volume()
    work_plan(f"labels={result_file(volume)}")
    job = logic.segment(volume, "model", waitForCompletion=False)
    scene.RemoveNode(volume)
    with pytest.raises(RunFailed, match="was removed from the scene"):
        job.wait()
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_the_console_thread_of_the_child_does_not_outlive_its_parent(tmp_path):
    """The contract of --exit-with-parent: our end of the child's standard input closes when we are gone."""
    from MedMAESegmentLib.ChildProcess import ChildProcess

    from medmae.run_folder import RunFolder

    RunFolder.create(tmp_path / "run", "segment", {}, {})
    child = ChildProcess(tmp_path / "run", command=[
        sys.executable, "-c", "import sys; sys.stdin.read(); open('closed', 'w').close()"])
    child.start()
    time.sleep(0.3)
    assert child.isRunning()
    os.close(child._process.stdin.fileno())
    child._process.stdin = None
    assert child.waitForExit(5)
    assert (tmp_path / "run" / "closed").exists()
