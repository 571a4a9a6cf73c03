"""Batches: every case has a state, a bad one does not take the others down, and a batch goes on where it ended."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with small models that compute."""
    home = tmp_path_factory.mktemp("home")
    script = Path(__file__).with_name("make_scripting_models.py")
    subprocess.run([sys.executable, script, home / "models"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return home


@pytest.fixture
def computing(home, monkeypatch, fake_worker):
    """The logic with the real engine for folders."""
    from MedMAESegmentLib.SegmentLogic import SegmentLogic

    monkeypatch.setenv("MEDMAE_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("MedMAESegmentLib.Dependencies.ensureInstalled", lambda: None)
    logic = SegmentLogic()
    logic.worker = fake_worker
    yield logic
    logic.cancel()


@pytest.fixture
def folder(tmp_path, make_volume):
    """A folder with three small images and one that is none."""
    from MedMAESegmentLib.VolumeExport import writeVolume

    volume = make_volume((20, 24, 28))
    (tmp_path / "images" / "more").mkdir(parents=True)
    for name in ("a.nrrd", "b.nrrd", "more/c.nrrd"):
        writeVolume(volume, tmp_path / "images" / name)
    (tmp_path / "images" / "bad.nrrd").write_text("NRRD0004\n")
    return tmp_path / "images"


def test_a_folder_that_is_a_dicom_series_is_one_case(computing, tmp_path):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
    from test_volumes_dicom import write_series

    (tmp_path / "there").mkdir()
    write_series(tmp_path / "there" / "series")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    series = tmp_path / "link" / "series"
    for expected in (False, True):
        (case,) = computing.segmentAll(series, "abdomen")
        assert (case.name, case.state, case.wasDoneBefore) == ("series", "done", expected)
        assert case.result == series / "MedMAE abdomen" / "series.seg.nrrd" and case.result.is_file()


def test_a_folder_goes_on_where_it_ended(computing, folder):
    out = folder / "MedMAE abdomen"
    cases = computing.segmentAll(folder, "abdomen")
    assert [case.state for case in cases] == ["done", "done", "failed", "done"] and cases[0].seconds > 0
    assert cases[3].result == out / "more" / "c.seg.nrrd" and cases[3].result.is_file()
    changed = cases[0].result.stat().st_mtime_ns
    (folder / "bad.nrrd").write_bytes((folder / "a.nrrd").read_bytes())
    cases = computing.segmentAll(folder, "abdomen")
    assert [case.wasDoneBefore for case in cases] == [True, True, False, True]
    assert cases[2].state == "done" and cases[0].result.stat().st_mtime_ns == changed
    with pytest.raises(ValueError, match=r"made with other choices \(mirroring\)"):
        computing.segmentAll(folder, "abdomen", mirror=True)
    cases = computing.segmentAll(folder, "abdomen", mirror=True, again=True)
    assert [(case.state, case.wasDoneBefore) for case in cases] == [("done", False)] * 4


def test_a_folder_is_segmented_elsewhere_and_goes_on_after_a_cancel_there_or_here(
        computing, folder, home, application, make_volume):
    from MedMAESegmentLib.FollowedJob import RunCancelled
    from MedMAESegmentLib.VolumeExport import writeVolume

    from medmae.jobs.job import list_jobs
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    before = application.leftovers()
    writeVolume(make_volume((160, 160, 160)), folder / "more" / "c.nrrd")  # large: it is not done when others are
    job = computing.segmentAll(folder, "abdomen", target="gpu-box", waitForCompletion=False)
    deadline = time.monotonic() + 60
    while not any("Done there" in case.message for case in job.cases):
        assert time.monotonic() < deadline and not job.poll()
        time.sleep(0.02)
    job.cancel()
    with pytest.raises(RunCancelled):
        job.wait()
    assert job._task.wait(60) and job.cases[3].state == "cancelled"  # the third may have failed before
    cases = computing.segmentAll(folder, "abdomen", target="gpu-box")
    assert [case.state for case in cases] == ["done", "done", "failed", "done"]
    assert cases[3].result == folder / "MedMAE abdomen" / "more" / "c.seg.nrrd" and cases[3].result.is_file()
    assert "bad.nrrd" in (folder / "MedMAE abdomen" / "summary.csv").read_text()
    here = computing.segmentAll(folder, "abdomen")
    assert [case.wasDoneBefore for case in here] == [True, True, False, True]
    assert len(list_jobs()) <= 2 and application.leftovers() == before
    done = [case.result.stat().st_mtime_ns for case in here if case.state == "done"]
    (folder / "bad.nrrd").write_bytes((folder / "a.nrrd").read_bytes())
    cases = computing.segmentAll(folder, "abdomen", target="gpu-box")
    assert [case.state for case in cases] == ["done"] * 4
    assert [cases[index].result.stat().st_mtime_ns for index in (0, 1, 3)] == done, "nothing is done twice"


def test_what_lies_beside_a_dicom_series_is_told_apart(computing, tmp_path, make_volume):
    sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))
    from MedMAESegmentLib.VolumeExport import writeVolume
    from test_volumes_dicom import write_series

    study, volume = tmp_path / "study", make_volume((20, 24, 28))
    write_series(study)
    (study / "notes.json").write_text("{}")
    for name in ("MedMAE other", "derived"):
        (study / name).mkdir()
        writeVolume(volume, study / name / "map.nrrd")
    (study / "MedMAE other" / "manifest.jsonl").write_text("")
    (study / "link.nrrd").symlink_to(study / "not fetched.nrrd")
    for isDoneBefore in (False, True):
        cases = computing.segmentAll(study, "abdomen")
        states = [(case.name, case.state, case.wasDoneBefore) for case in cases]
        assert states == [("study", "done", isDoneBefore), ("derived/map.nrrd", "done", isDoneBefore),
                          ("link.nrrd", "failed", False)]
        results = sorted(path.name for path in study.rglob("*.seg.nrrd"))
        assert results == ["map.seg.nrrd", "study.seg.nrrd"], "results of another model are no images"


def test_a_folder_that_was_moved_with_its_results_is_told_before_anything_begins(computing, folder):
    (folder / "bad.nrrd").unlink()
    computing.segmentAll(folder, "abdomen")
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(ValueError, match=r"made with other choices \(images in another place\). Choose another folder"):
        computing.segmentAll(moved, "abdomen")
    cases = computing.segmentAll(moved, "abdomen", again=True)
    assert [(case.state, case.wasDoneBefore) for case in cases] == [("done", False)] * 3
    assert all(case.wasDoneBefore for case in computing.segmentAll(moved, "abdomen"))


def test_a_folder_of_results_that_is_removed_in_the_middle_is_made_again(computing, folder, tmp_path):
    out = tmp_path / "out"
    job = computing.segmentAll(folder, "abdomen", out, waitForCompletion=False)
    deadline = time.monotonic() + 60
    while job.cases[0].state != "done":
        assert time.monotonic() < deadline and not job.poll()
        time.sleep(0.005)
    shutil.rmtree(out)
    job.wait()
    cases = computing.segmentAll(folder, "abdomen", out)
    assert [case.state for case in cases] == ["done", "done", "failed", "done"]
    assert all(case.result.is_file() for case in cases if case.state == "done")


def test_an_engine_that_is_killed_is_told_and_its_batch_goes_on(computing, folder, application):
    from MedMAESegmentLib.FollowedJob import RunFailed

    before = application.leftovers()
    job = computing.segmentAll(folder, "abdomen", waitForCompletion=False)
    deadline = time.monotonic() + 60
    while job.cases[0].state != "done":
        assert time.monotonic() < deadline and not job.poll()
        time.sleep(0.01)
    os.killpg(job._process._process.pid, signal.SIGKILL)
    with pytest.raises(RunFailed, match="ended without saying why"):
        job.wait()
    assert job.cases[3].state == "cancelled" and application.leftovers() == before
    cases = computing.segmentAll(folder, "abdomen")
    assert [case.state for case in cases] == ["done", "done", "failed", "done"] and cases[0].wasDoneBefore
    assert not list(folder.rglob(".partial-*"))


def test_a_folder_in_which_everything_has_failed_is_tried_again(computing, folder):
    from MedMAESegmentLib.FollowedJob import RunFailed

    for image in ("a.nrrd", "b.nrrd", "more/c.nrrd"):
        (folder / image).write_text("NRRD0004\n")
    with pytest.raises(RunFailed):
        computing.segmentAll(folder, "abdomen")
    (folder / "a.nrrd").unlink()
    with pytest.raises(RunFailed):
        computing.segmentAll(folder, "abdomen")


def test_what_has_failed_elsewhere_is_tried_again(computing, folder):
    from MedMAESegmentLib.FollowedJob import RunFailed

    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    (folder / "bad.nrrd").unlink()
    add_target(Target("gpu-box", environment="python", python="/bin/false"), replace=True)
    with pytest.raises(RunFailed):
        computing.segmentAll(folder, "abdomen", target="gpu-box")
    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    cases = computing.segmentAll(folder, "abdomen", target="gpu-box")
    assert [case.state for case in cases] == ["done"] * 3


def test_volumes_are_segmented_elsewhere_one_after_the_other(computing, home, make_volume, application):
    from medmae.jobs.target import Target
    from medmae.jobs.targets import add_target

    add_target(Target("gpu-box", environment="python", python=sys.executable), replace=True)
    before = application.leftovers()
    cases = computing.segmentAll([make_volume((20, 24, 28), name="one")], "abdomen", target="gpu-box")
    assert [case.state for case in cases] == ["done"] and application.leftovers() == before
    assert cases[0].result.GetAttribute("MedMAE.options").count("gpu-box") == 1
