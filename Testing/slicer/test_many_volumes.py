"""Batches: every case has a state, a bad one does not take the others down, and a batch goes on where it ended."""

from __future__ import annotations

import errno
import sys
import time

import numpy as np
import pytest
import slicer

BOX = np.s_[1:3, 2:5, 1:4]


@pytest.fixture
def logic(a_known_model, fake_worker):
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    logic = SegmentLogic()
    logic.worker = fake_worker
    yield logic
    logic.cancel()


def test_a_bad_case_does_not_take_the_others_down(logic, work_plan, scene, make_volume, labels_file, tmp_path):
    volumes = [make_volume(name=name) for name in ("one", "two", "three")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")
    job = logic.segmentAll(volumes, "model", tmp_path / "out", waitForCompletion=False)
    scene.RemoveNode(volumes[1])
    cases = job.wait()
    assert [case.state for case in cases] == ["done", "failed", "done"]
    assert "two was removed from the scene" in cases[1].message
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.seg.nrrd", "three.seg.nrrd"]


def test_a_batch_that_was_cancelled_goes_on(logic, work_plan, make_volume, labels_file):
    from MedMAESegmentLib.FollowedJob import RunCancelled

    volumes = [make_volume(name=name) for name in ("one", "two")]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")

    def stopAtTheSecond(_fraction, message):
        if message.startswith("two"):
            logic.cancel()

    job = logic.segmentAll(volumes, "model", waitForCompletion=False, progressCallback=stopAtTheSecond)
    with pytest.raises(RunCancelled):
        job.wait()
    assert [case.state for case in job.cases] == ["done", "cancelled"]
    first = job.cases[0].result
    cases = logic.segmentAll(volumes, "model")
    assert [case.state for case in cases] == ["done", "done"]
    assert cases[0].result is first and cases[0].message == "Was segmented before."
    assert logic.jobs == []


def test_a_batch_of_bad_cases_is_a_failure_with_its_reasons(logic, work_plan, make_volume):
    from MedMAESegmentLib.FollowedJob import RunFailed

    work_plan("fail=The volume is sheared. Resample it first.")
    with pytest.raises(RunFailed, match="0 of 1 cases are done, 1 failed:\none: The volume is sheared."):
        logic.segmentAll([make_volume(name="one")], "model")


def test_a_folder_without_images_and_a_target_that_is_not_there_are_told(logic, make_volume, tmp_path, application):
    from medmae.errors import BadInput

    before = application.leftovers()
    with pytest.raises((ValueError, BadInput), match=str(tmp_path)):
        logic.segmentAll(tmp_path, "model")
    with pytest.raises(BadInput, match="There is no target gpu-box"):
        logic.segment(make_volume(), "model", target="gpu-box")
    assert application.leftovers() == before


def test_what_fails_on_a_target_is_told_and_leaves_nothing_behind(
        logic, make_volume, tmp_path, monkeypatch, application):
    from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path))
    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    before = application.leftovers()
    with pytest.raises(RunFailed, match="/models/model"):
        logic.segment(make_volume(), "model", target="gpu-box")
    job = logic.segment(make_volume(), "model", target="gpu-box", waitForCompletion=False)
    job.cancel()
    with pytest.raises(RunCancelled):
        job.wait()
    job._task.wait(60)
    assert application.leftovers() == before and logic.jobs == []


def test_results_are_saved_beside_one_another_with_names_colours_and_terms(
        logic, work_plan, make_volume, labels_file, tmp_path):
    volumes = [make_volume(name="CT/1") for _ in range(2)]
    work_plan(f"labels={labels_file(volumes[0], [BOX])}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "CT_1.seg.nrrd").write_text("somebody's")
    cases = logic.segmentAll(volumes, "model", tmp_path / "out")
    assert [case.state for case in cases] == ["done", "done"]
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["CT_1-2.seg.nrrd", "CT_1-3.seg.nrrd", "CT_1.seg.nrrd"]
    assert files[2].read_text() == "somebody's", "nothing is overwritten"
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(files[0]))
    assert storage.ReadData(loaded)
    for index in range(2):
        made, found = (node.GetSegmentation().GetNthSegment(index) for node in (cases[0].result, loaded))
        assert found.GetName() == made.GetName() and found.GetColor() == pytest.approx(made.GetColor(), abs=1e-5)
        assert found.GetTerminology().split("~")[2] == made.GetTerminology().split("~")[2]
        masks = [slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(index),
                                                            volumes[0]) for node in (cases[0].result, loaded)]
        np.testing.assert_array_equal(*masks)


def test_results_of_an_earlier_batch_are_saved_once_when_a_folder_is_named(
        logic, work_plan, make_volume, labels_file, tmp_path):
    volume = make_volume(name="one")
    work_plan(f"labels={labels_file(volume, [BOX])}")
    logic.segmentAll([volume], "model")
    for _ in range(2):
        (case,) = logic.segmentAll([volume], "model", tmp_path / "out")
        assert case.wasDoneBefore and [file.name for file in (tmp_path / "out").iterdir()] == ["one.seg.nrrd"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, so that the folder"):
        logic.segmentAll([volume], "model", tmp_path / "file" / "out")


def test_names_that_differ_in_case_only_get_files_of_their_own(tmp_path):
    from MedMAESegmentLib.SegmentationFile import freePath

    assert freePath(tmp_path, "CT", [tmp_path / "ct.seg.nrrd"]).name == "CT-2.seg.nrrd"


def test_a_full_disk_is_told_in_plain_words(logic, work_plan, make_volume, labels_file, tmp_path, monkeypatch):
    from MedMAESegmentLib.FollowedJob import RunFailed

    def refuse(path, *_arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    volume = make_volume(name="one")
    work_plan(f"labels={labels_file(volume, [BOX])}")
    monkeypatch.setattr("MedMAESegmentLib.SegmentationWriter.write_gzip", refuse)
    with pytest.raises(RunFailed, match="could not be saved: The disk is full. Make room and try again."):
        logic.segmentAll([volume], "model", tmp_path / "out")


def test_what_cannot_be_saved_is_told_and_stays_in_the_scene(logic, work_plan, make_volume, labels_file, tmp_path):
    volume = make_volume(name="one")
    work_plan(f"labels={labels_file(volume, [BOX])}", "work=0.3")
    job = logic.segmentAll([volume], "model", tmp_path / "out", waitForCompletion=False)
    (tmp_path / "out").write_text("")  # whoever it was
    with pytest.raises(Exception, match="in the scene but could not be saved"):
        job.wait()
    assert job.cases[0].result.GetScene() is slicer.mrmlScene


def test_a_result_that_somebody_has_changed_is_saved_as_it_is(
        logic, work_plan, make_volume, labels_file, tmp_path):
    volume = make_volume(name="one")
    work_plan(f"labels={labels_file(volume, [BOX])}")
    node = logic.segment(volume, "model")
    everything = np.ones(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    added = node.GetSegmentation().AddEmptySegment("", "body")
    slicer.util.updateSegmentBinaryLabelmapFromArray(everything, node, added, volume)
    assert node.GetSegmentation().GetNumberOfLayers() == 2, "they overlap"
    logic.segmentAll([volume], "model", tmp_path)
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(tmp_path / "one.seg.nrrd"))
    assert storage.ReadData(loaded)
    sizes = [slicer.util.arrayFromSegmentBinaryLabelmap(loaded, loaded.GetSegmentation().GetNthSegmentID(index),
                                                        volume).sum() for index in (0, 2)]
    assert sizes == [18, everything.sum()]


@pytest.mark.alone
def test_saving_a_large_result_does_not_hold_the_event_loop(make_volume, make_segmentation, tmp_path):
    from MedMAESegmentLib.SegmentationFile import SegmentationFile

    volume = make_volume((200, 512, 512), dtype="uint8")
    node = make_segmentation(volume, {})
    from MedMAESegmentLib.LabelImport import importLabels

    labels = np.zeros((200, 512, 512), np.uint8)
    labels[5:195, 20:500, 20:500] = np.arange(480) // 60 % 3
    names = [{"name": name, "value": value} for value, name in enumerate(("background", "left", "right"))]
    importLabels(labels, names, volume, node)
    taken = []
    for number in range(3):  # a busy machine makes single ones longer
        begun = time.monotonic()
        file = SegmentationFile(tmp_path / f"large-{number}.seg.nrrd", node, volume)
        taken.append(time.monotonic() - begun)
    assert min(taken) < 0.1
    gaps = [time.monotonic()]
    while not file.isOver:
        time.sleep(0.005)
        gaps.append(time.monotonic())
    assert np.sort(np.diff(gaps))[-3] < 0.1, "single longer ones are those of a busy machine"
    assert file.result().stat().st_size > 1000
