"""While a child works, or the volume is handed to it, anything may happen to the scene and to the files."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer

FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
BOX = np.s_[1:3, 2:5, 1:4]


@pytest.fixture
def logic(a_known_model):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    logic = SegmentLogic()
    logic.engineCommand = FAKE_ENGINE
    yield logic
    logic.cancel()


@pytest.fixture
def result_file(make_volume, make_segmentation, scene, tmp_path):
    """A .seg.nrrd with one segment "left" on the grid of the volumes that `make_volume` makes."""
    volume = make_volume()
    node = make_segmentation(volume, {"left": BOX})
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "expected.seg.nrrd"))
    assert storage.WriteData(node)
    scene.Clear(0)
    return tmp_path / "expected.seg.nrrd"


@pytest.fixture
def while_handing_over(monkeypatch):
    """Do something whenever the application is given time."""
    return lambda action: monkeypatch.setattr(slicer.app, "processEvents", action)


def test_a_result_never_goes_to_another_volume_that_got_the_same_id(
        logic, engine, application, make_volume, result_file):
    from MedMAESegmentLib.RunJob import RunFailed

    volume = make_volume(name="first patient")
    node_id = volume.GetID()
    engine("work=0.2", f"result={result_file}")
    job = logic.segment(volume, "model", waitForCompletion=False)
    application.clear()
    other = make_volume(name="second patient")
    assert other.GetID() == node_id
    with pytest.raises(RunFailed, match="was removed from the scene"):
        job.wait()
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is None


def test_a_volume_turned_around_meanwhile_is_refused(logic, engine, make_volume, result_file):
    from MedMAESegmentLib.RunJob import RunFailed

    volume = make_volume(name="mine")
    engine("work=0.2", f"result={result_file}")
    job = logic.segment(volume, "model", waitForCompletion=False)
    volume.SetIJKToRASDirections(1, 0, 0, 0, 1, 0, 0, 0, 1)
    with pytest.raises(RunFailed, match="mine was changed"):
        job.wait()


def test_a_deleted_target_is_replaced_by_a_new_node(logic, engine, scene, make_volume, result_file):
    engine("work=0.2", f"result={result_file}")
    volume, target = make_volume(), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    job = logic.segment(volume, "model", target, waitForCompletion=False)
    scene.RemoveNode(target)
    assert job.wait().GetSegmentation().GetNumberOfSegments() == 1


def test_two_results_of_a_volume_have_two_names(logic, engine, make_volume, result_file):
    engine("work=0.1", f"result={result_file}")
    volume = make_volume(name="CT")
    jobs = [logic.segment(volume, "model", waitForCompletion=False) for _ in range(2)]
    assert len({job.wait().GetName() for job in jobs}) == 2


def test_segments_under_another_transform_are_never_moved(
        logic, engine, scene, make_volume, make_segmentation, result_file):
    volume = make_volume()
    engine("work=0.2", f"result={result_file}")
    target, transform = make_segmentation(volume, {"mine": BOX}), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    job = logic.segment(volume, "model", target, waitForCompletion=False)
    target.SetAndObserveTransformNodeID(transform.GetID())
    assert job.wait() is not target
    assert target.GetSegmentation().GetNumberOfSegments() == 1
    with pytest.raises(ValueError, match="is under another transform"):
        logic.segment(volume, "model", target)


def test_segments_that_are_surfaces_keep_their_shape(logic, engine, make_volume, make_segmentation, result_file):
    volume = make_volume(affine=np.eye(4))
    target = make_segmentation(volume, {"mine": np.s_[1:5, 1:7, 1:9]})
    target.CreateClosedSurfaceRepresentation()
    target.GetSegmentation().SetSourceRepresentationName("Closed surface")
    target.GetSegmentation().RemoveRepresentation("Binary labelmap")
    from MedMAESegmentLib.SegmentationImport import _copySegments

    result = make_segmentation(volume, {"left": BOX})
    _copySegments(result.GetSegmentation(), target.GetSegmentation())
    mine = target.GetSegmentation().GetSegmentIdBySegmentName("mine")
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(target, mine, volume) > 0).sum() > 50


def test_cancelling_while_the_volume_is_handed_over_starts_nothing(
        logic, engine, application, make_volume, while_handing_over):
    from MedMAESegmentLib.RunJob import RunCancelled

    engine("work=60")
    before = application.leftovers()
    while_handing_over(logic.cancel)
    with pytest.raises(RunCancelled):
        logic.segment(make_volume(), "model", waitForCompletion=False)
    assert logic.jobs == [] and application.leftovers() == before


def test_closing_the_scene_while_the_volume_is_handed_over_is_explained(
        logic, engine, application, make_volume, while_handing_over):
    engine("work=60")
    before = application.leftovers()
    while_handing_over(application.clear)
    with pytest.raises(ValueError, match="mine was removed from the scene while it was being handed over"):
        logic.segment(make_volume(name="mine"), "model", waitForCompletion=False)
    assert logic.jobs == [] and application.leftovers() == before


def test_after_a_cancel_the_next_call_works(logic, engine, make_volume, result_file):
    volume = make_volume()
    engine("work=60")
    logic.segment(volume, "model", waitForCompletion=False)
    logic.cancel()
    engine(f"result={result_file}")
    assert logic.segment(volume, "model").GetSegmentation().GetNumberOfSegments() == 1


def test_lines_of_progress_that_make_no_sense_are_passed_over(logic, engine, make_volume, result_file):
    engine("work=0.4", f"result={result_file}")
    job = logic.segment(make_volume(), "model", waitForCompletion=False)
    with open(job.run.progress_file, "ab") as file:
        file.write(b'nonsense\n[1]\n5\n{"total": 3}\n{"step": "a", "total": "b"}\n\xff\xfe\n')
    assert job.wait().GetSegmentation().GetNumberOfSegments() == 1


def test_a_damaged_state_ends_the_job(logic, engine, make_volume):
    from MedMAESegmentLib.RunJob import RunFailed

    engine("work=0.5")
    job = logic.segment(make_volume(), "model", waitForCompletion=False)
    deadline = time.monotonic() + 60
    while job.run.state()["state"] != "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    Path(job.run.state_file).write_text("{")
    with pytest.raises(RunFailed, match="was removed or damaged"):
        job.wait()


def test_a_run_folder_that_is_gone_ends_the_job(logic, engine, make_volume):
    from MedMAESegmentLib.RunJob import RunFailed, RunJob

    engine("work=60")
    job = logic.segment(make_volume(), "model", waitForCompletion=False)
    follower = RunJob(job.run)
    logic.cancel()
    shutil.rmtree(job.run.path, ignore_errors=True)
    assert follower.poll()
    assert isinstance(follower.error, RunFailed)


def test_a_missing_package_of_the_child_is_explained(logic, tmp_path, make_volume, monkeypatch):
    from MedMAESegmentLib.RunJob import RunFailed

    (tmp_path / "shadow" / "numpy").mkdir(parents=True)
    (tmp_path / "shadow" / "numpy" / "__init__.py").write_text("raise ModuleNotFoundError('No module named x')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    logic.engineCommand = None
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    with pytest.raises(RunFailed, match="Python package that the computation needs is missing") as error:
        logic.segment(make_volume(), "model")
    assert "log.txt" not in str(error.value)


def test_a_reason_names_the_volume_not_a_temporary_file(logic, make_volume, engine):
    job = logic.segment(make_volume(name="CT of somebody"), "model", waitForCompletion=False)
    reason = f"{job.run.path.parent / 'volume.nrrd'} has a sheared affine"
    error = job._failure("failed", {"reason": reason, "remedy": "See log.txt in the run folder."})
    assert str(error) == "The volume CT of somebody has a sheared affine. Slicer's log has the details."


def test_what_cannot_be_segmented_is_refused_before_anything_starts(logic, engine, scene, make_volume, application):
    engine("work=60")
    before = application.leftovers()
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
    assert application.leftovers() == before


def test_a_singular_transform_is_not_what_the_network_sees(scene, make_volume):
    from MedMAESegmentLib.VolumeExport import ijkToRas, networkGeometry

    volume, transform = make_volume(), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.diag([0.0, 1.0, 1.0, 1.0])))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    np.testing.assert_array_equal(networkGeometry(volume), ijkToRas(volume))


@pytest.mark.parametrize("name", ['q"uo\'te', "new\nline", "ü字", "a/b\\c", "<b>bold</b>", "x" * 300, "", "~^,;|%s{0}"])
def test_hostile_names_stay_names(logic, engine, make_volume, result_file, name, tmp_path):
    engine(f"result={result_file}")
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
