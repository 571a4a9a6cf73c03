"""While a child works, or the volume is handed to it, anything may happen to the scene and to the files."""

from __future__ import annotations

import os

import numpy as np
import pytest
import slicer
from conftest import voxels_left

BOX = np.s_[1:3, 2:5, 1:4]


@pytest.fixture
def logic(a_known_model, fake_worker):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    logic = SegmentLogic()
    logic.worker = fake_worker
    yield logic
    logic.cancel()


@pytest.fixture
def result_file(make_volume, labels_file, scene):
    """What the worker answers for the volumes that `make_volume` makes: a segment "left"."""
    file = labels_file(make_volume(), [BOX])
    scene.Clear(0)
    return file


@pytest.fixture
def while_handing_over(monkeypatch):
    """Do something whenever the application is given time."""
    return lambda action: monkeypatch.setattr(slicer.app, "processEvents", action)


def test_a_result_never_goes_to_another_volume_that_got_the_same_id(
        logic, work_plan, application, make_volume, result_file):
    from MedMAESegmentLib.FollowedJob import RunFailed

    volume = make_volume(name="first patient")
    node_id = volume.GetID()
    work_plan("work=0.2", f"labels={result_file}")
    job = logic.segment(volume, "model", waitForCompletion=False)
    application.clear()
    other = make_volume(name="second patient")
    assert other.GetID() == node_id
    with pytest.raises(RunFailed, match="was removed from the scene"):
        job.wait()
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_volume_turned_around_meanwhile_is_refused(logic, work_plan, make_volume, result_file):
    from MedMAESegmentLib.FollowedJob import RunFailed

    volume = make_volume(name="mine")
    work_plan("work=0.2", f"labels={result_file}")
    job = logic.segment(volume, "model", waitForCompletion=False)
    volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0, 0, 0, 1)
    with pytest.raises(RunFailed, match="mine was changed"):
        job.wait()


def test_a_deleted_target_is_replaced_by_a_new_node(logic, work_plan, scene, make_volume, result_file):
    work_plan("work=0.2", f"labels={result_file}")
    volume, target = make_volume(), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    job = logic.segment(volume, "model", target, waitForCompletion=False)
    scene.RemoveNode(target)
    assert job.wait().GetSegmentation().GetNumberOfSegments() == 2


def test_two_results_of_a_volume_have_two_names(logic, work_plan, make_volume, result_file):
    work_plan("work=0.1", f"labels={result_file}")
    volume = make_volume(name="CT")
    jobs = [logic.segment(volume, "model", waitForCompletion=False) for _ in range(2)]
    assert len({job.wait().GetName() for job in jobs}) == 2


def test_segments_under_another_transform_are_never_moved(
        logic, work_plan, scene, make_volume, make_segmentation, result_file):
    volume = make_volume()
    work_plan("work=0.2", f"labels={result_file}")
    target, transform = make_segmentation(volume, {"mine": BOX}), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    job = logic.segment(volume, "model", target, waitForCompletion=False)
    target.SetAndObserveTransformNodeID(transform.GetID())
    assert job.wait() is not target
    assert target.GetSegmentation().GetNumberOfSegments() == 1
    with pytest.raises(ValueError, match="is under another transform"):
        logic.segment(volume, "model", target)


def test_segments_that_are_surfaces_keep_their_shape(logic, work_plan, make_volume, make_segmentation, result_file):
    volume = make_volume(affine=np.eye(4))
    target = make_segmentation(volume, {"mine": np.s_[1:5, 1:7, 1:9]})
    target.CreateClosedSurfaceRepresentation()
    target.GetSegmentation().SetSourceRepresentationName("Closed surface")
    target.GetSegmentation().RemoveRepresentation("Binary labelmap")
    work_plan(f"labels={result_file}")
    logic.segment(volume, "model", target)
    mine = target.GetSegmentation().GetSegmentIdBySegmentName("mine")
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(target, mine, volume) > 0).sum() > 50


def test_cancelling_while_the_volume_is_handed_over_starts_nothing(
        logic, work_plan, make_volume, while_handing_over):
    from MedMAESegmentLib.FollowedJob import RunCancelled

    work_plan("work=60")
    while_handing_over(logic.cancel)
    with pytest.raises(RunCancelled):
        logic.segment(make_volume(), "model", waitForCompletion=False)
    assert logic.jobs == [] and voxels_left(logic) == []


def test_closing_the_scene_while_the_volume_is_handed_over_is_explained(
        logic, work_plan, application, make_volume, while_handing_over):
    work_plan("work=60")
    while_handing_over(application.clear)
    with pytest.raises(ValueError, match="mine was removed from the scene while it was being handed over"):
        logic.segment(make_volume(name="mine"), "model", waitForCompletion=False)
    assert logic.jobs == [] and voxels_left(logic) == []


@pytest.mark.parametrize("change", [
    lambda volume: slicer.util.updateVolumeFromArray(volume, np.zeros((7, 8, 10), np.int16)),
    lambda volume: volume.SetSpacing(1, 2, 3), lambda volume: volume.SetAndObserveImageData(None)])
def test_another_image_in_the_volume_while_it_is_handed_over_is_explained(
        logic, work_plan, make_volume, while_handing_over, change):
    work_plan("work=60")
    volume = make_volume(name="mine")
    while_handing_over(lambda: change(volume))
    with pytest.raises(ValueError, match="mine was changed while it was being handed over"):
        logic.segment(volume, "model", waitForCompletion=False)
    assert logic.jobs == [] and voxels_left(logic) == []


def test_after_a_cancel_the_next_call_works(logic, work_plan, make_volume, result_file):
    volume = make_volume()
    work_plan("work=60")
    logic.segment(volume, "model", waitForCompletion=False)
    logic.cancel()
    work_plan(f"labels={result_file}")
    assert logic.segment(volume, "model").GetSegmentation().GetNumberOfSegments() == 2


def test_a_missing_package_of_the_worker_is_explained(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunFailed

    work_plan("missing=x_that_nobody_has")
    with pytest.raises(RunFailed, match="Python package that the computation needs is missing") as error:
        logic.segment(make_volume(), "model")
    assert "worker's log" not in str(error.value)


def test_after_a_failure_the_same_worker_goes_on(logic, work_plan, make_volume, result_file):
    from MedMAESegmentLib.FollowedJob import RunFailed

    volume = make_volume()
    work_plan("break=something unforeseen")
    with pytest.raises(RunFailed, match="something unforeseen"):
        logic.segment(volume, "model")
    work_plan(f"labels={result_file}")
    logic.segment(volume, "model")
    assert logic.worker.starts == 1


def test_after_the_worker_was_killed_the_next_call_starts_another(logic, work_plan, make_volume, result_file):
    from MedMAESegmentLib.FollowedJob import RunFailed

    volume = make_volume()
    work_plan("die")
    with pytest.raises(RunFailed, match="ended from outside"):
        logic.segment(volume, "model")
    work_plan(f"labels={result_file}")
    logic.segment(volume, "model")
    assert logic.worker.starts == 2


def test_quitting_while_it_computes_ends_the_worker(logic, work_plan, make_volume):
    from medmae.run_folder import process_start

    work_plan("work=60")
    job = logic.segment(make_volume(), "model", waitForCompletion=False)
    process, folder = logic.worker.client.pid, logic.worker.client.exchange.folder
    logic.worker.close()
    assert process_start(process) is None and not folder.exists()
    assert job.poll() and job.state == "cancelled"


def test_what_cannot_be_segmented_is_refused_before_anything_starts(logic, work_plan, scene, make_volume, application):
    work_plan("work=60")
    outside = slicer.vtkMRMLScalarVolumeNode()
    slicer.util.updateVolumeFromArray(outside, np.zeros((4, 5, 6), np.int16))
    labels = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.uint8), nodeClassName="vtkMRMLLabelMapVolumeNode")
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    single = slicer.util.addVolumeFromArray(np.zeros((1, 1, 1), np.int16))
    for thing, message in [(None, "volume is needed"), ("CT", "volume is needed"), (outside, "not in the scene"),
                           (labels, "is a label map"), (empty, "is empty"), (single, "a single voxel"),
                           (scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), "volume is needed")]:
        with pytest.raises(ValueError, match=message):
            logic.segment(thing, "model")
    with pytest.raises(ValueError, match="needs a segmentation node"):
        logic.segment(make_volume(), "model", make_volume())
    assert voxels_left(logic) == []


@pytest.mark.parametrize(("affine", "reason"), [
    (np.diag([1.0, 1.0, np.nan, 1.0]), "volume odd has no usable geometry"),
    (np.eye(4) + 0.5 * np.eye(4, k=1) * [1, 1, 0, 0], "volume odd has a sheared grid")])
def test_voxels_that_are_no_boxes_are_refused_before_anything_starts(logic, work_plan, make_volume, affine, reason):
    from medmae.errors import BadInput

    work_plan("work=60")
    volume = make_volume(affine=affine, name="odd")
    for call in (logic.segment, logic.classify, logic.estimate, logic.warnings):
        with pytest.raises(BadInput, match=reason):
            call(volume, "model")
    assert logic.jobs == [] and logic.worker.starts == 0


def test_a_singular_transform_is_not_what_the_network_sees(scene, make_volume):
    from MedMAESegmentLib.VolumeExport import ijkToRas, networkGeometry

    volume, transform = make_volume(), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([0.0, 1.0, 1.0, 1.0])))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    np.testing.assert_array_equal(networkGeometry(volume), ijkToRas(volume))


@pytest.mark.parametrize("name", ['q"uo\'te', "new\nline", "ü字", "a/b\\c", "<b>bold</b>", "x" * 300, "", "~^,;|%s{0}"])
def test_hostile_names_stay_names(logic, work_plan, make_volume, result_file, name, tmp_path):
    work_plan(f"labels={result_file}")
    volume = make_volume(name=name)
    node = logic.segment(volume, "model")
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(tmp_path / "saved.seg.nrrd"))
    assert storage.WriteData(node)
    header = (tmp_path / "saved.seg.nrrd").read_bytes().partition(b"\n\n")[0]
    assert os.fsencode(slicer.app.temporaryPath) not in header


def test_a_node_reference_ends_with_its_node(scene, make_volume):
    from MedMAESegmentLib.NodeReference import NodeReference

    volume = make_volume()
    reference = NodeReference(volume)
    assert reference.node is volume
    scene.RemoveNode(volume)
    assert reference.node is None
    del volume
    assert reference.node is None
