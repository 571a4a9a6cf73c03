"""Batches that the engine computes, here and elsewhere: each goes on where it ended, whatever has ended it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home(scripting_models, tmp_path_factory):
    """A home with small models that compute."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(scripting_models, home / "models")
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


@pytest.mark.slow
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


@pytest.mark.alone
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


@pytest.mark.alone
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
