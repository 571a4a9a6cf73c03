"""Predicting and ranking behind a real sshd: results come home to their cases, and none is lost or computed twice."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
import slicer
from MedMAETrainLib.LoopLogic import LoopLogic
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectRun
from test_segmenting_on_another_computer import logic, server  # noqa: F401 - fixtures

from medmae.volumes import read_label


@pytest.fixture
def project(logic, tmp_path, make_volume, make_segmentation):  # noqa: F811 - models and a target are there
    """Case 1 is annotated, and gone again; 2 and 3 are not. Their ids are not those of the same places there."""
    project = Project.create(tmp_path / "project", "DOE JANE")
    volume = make_volume((20, 24, 28))
    project.addCase(volume, make_segmentation(volume, {"liver": np.s_[2:5, 2:5, 2:5]}))
    project.addCase(make_volume((20, 24, 29), name="DOE^JANE"))
    project.addCase(make_volume((20, 24, 30), name="DOE^JIM"))
    project.putRun(ProjectRun("run-1", "segmentation", ("case-0001",), "2026-11-20T10:00:00+00:00", model="abdomen"))
    yield project
    project.close()


@pytest.mark.alone
def test_predictions_come_home_to_their_cases_and_the_event_loop_lives(project, monkeypatch):
    from medmae.jobs.job import list_jobs

    loop, beats, told = LoopLogic(), [], []
    monkeypatch.setattr(slicer.app, "processEvents", lambda: beats.append(time.monotonic()))
    result = loop.predictAndRank(project, target="gpu-box", waitForCompletion=True,
                                 progressCallback=lambda _fraction, message: told.append(message))
    assert set(result.done) == {"case-0002", "case-0003"} and not result.failed
    assert "Sending to gpu-box" in told and "Fetching the results" in told
    for case, size in (("case-0002", 29), ("case-0003", 30)):
        assert project.case(case).state == "predicted"
        assert read_label(project.file(project.case(case).label)).array.shape == (1, 20, 24, size)
    assert not list(project.path.glob("next-case-*"))
    assert {one.case.id for one in loop.ranking(project).cases} == {"case-0002", "case-0003"}
    assert np.sort(np.diff(beats))[-3] < 0.1, "the longest are those of a busy machine"
    deadline = time.monotonic() + 30
    while list_jobs():  # what is here is not needed there
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_slicer_left_alone_is_followed_when_it_is_started_again(project):
    from medmae.jobs.job import list_jobs

    loop = LoopLogic()
    job = loop.predict(project, target="gpu-box")
    job._stop.wait = lambda _seconds: sys.exit()  # nobody tells the target, as when Slicer is killed
    assert job._task.wait(60) and len(list_jobs()) == 1
    job.cancel()
    before = {each.id for each in list_jobs()}
    again = loop.predict(project, target="gpu-box")
    result = again.wait()
    assert set(result.done) == {"case-0002", "case-0003"} and {each.id for each in again._finished} == before
