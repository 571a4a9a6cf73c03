"""Batches: every case has a state, a bad one does not take the others down, and a batch goes on where it ended."""

from __future__ import annotations

import sys

import numpy as np
import pytest

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
