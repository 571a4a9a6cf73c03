"""Runs of this computer wait for those before them, whatever becomes of the Slicers that have put them there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAETrainLib.TrainLogic import TrainLogic

from medmae.errors import BadInput
from medmae.home import runs_folder

FAKE_ENGINE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]


def _newLogic():
    logic = TrainLogic()
    logic.engineCommand = FAKE_ENGINE
    return logic


@pytest.fixture
def logics(monkeypatch):
    import medmae.models

    monkeypatch.setattr(medmae.models, "install_model", lambda folder, name=None, replace=False: Path("/models") / name)
    logics = [_newLogic(), _newLogic()]
    yield logics
    for logic in logics:
        for job in list(logic.jobs):
            job.cancel()


@pytest.fixture
def logic(logics):
    return logics[0]


@pytest.fixture
def cases(make_volume, make_segmentation):
    volume = make_volume()
    return [(volume, make_segmentation(volume, {"liver": np.s_[1:3, 2:5, 1:4]}))]


def _queued(logic, cases, *names):
    return [logic.finetune(cases, name=name, method="gl-mae", queue=True) for name in names]


def _states(logic):
    return {entry.name: entry.status.state for entry in logic.runs()}


def _until(condition, *jobs):
    deadline = time.monotonic() + 60  # generous: the machine may be busy
    while not condition():
        assert time.monotonic() < deadline
        for job in jobs:
            job.poll()
        time.sleep(0.02)


def test_one_after_the_other_in_the_order_in_which_they_came(logic, engine, cases):
    engine("progress", "work=0.3")
    jobs = _queued(logic, cases, "a", "b", "c")
    assert [job.status.state for job in jobs] == ["queued", "waiting", "waiting"]
    ended = []
    for job in jobs:
        job.finished.connect(lambda job: ended.append((job.modelName, list(_states(logic).values()).count("running"))))
    _until(lambda: all(job.ended for job in jobs), *reversed(jobs))
    assert [name for name, _running in ended] == ["a", "b", "c"] and max(count for _name, count in ended) <= 1
    assert [job.result for job in jobs] == ["a", "b", "c"]


def test_a_run_that_fails_or_dies_holds_nobody_up(logic, engine, cases):
    engine("die")
    first, second = _queued(logic, cases, "a", "b")
    _until(lambda: first.ended, first)
    engine("progress")
    assert second.wait() == "b"


def test_a_run_that_was_started_at_once_is_waited_for_too(logic, engine, cases):
    engine("work=60")
    running = logic.finetune(cases, name="a", method="gl-mae")
    (waiting,) = _queued(logic, cases, "b")
    _until(lambda: running.status.state == "running", running, waiting)
    assert not waiting.poll() and waiting.status.state == "waiting"
    running.stop()
    _until(lambda: waiting.status.state == "running", running, waiting)


def test_a_waiting_run_can_be_started_now_or_taken_out_and_resumed(logic, engine, cases):
    engine("work=60")
    first, second, third = _queued(logic, cases, "a", "b", "c")
    assert logic.startRunNow(second.id) is second and third.status.state == "waiting"
    _until(lambda: second.status.state == "running", second)
    with pytest.raises(BadInput, match="does not wait"):
        logic.startRunNow(second.id)
    logic.stopRun(third.id)
    assert third.ended and isinstance(third.error, RunCancelled) and _states(logic)["c"] == "stopped"
    again = logic.resumeRun(third.id)
    _until(lambda: again.status.state == "running", again)


def test_a_waiting_run_can_be_removed(logic, engine, cases):
    engine("work=60")
    _first, second = _queued(logic, cases, "a", "b")
    logic.removeRun(second.id)
    assert second.ended and list(_states(logic)) == ["a"] and not second.run.path.exists()


def test_the_queue_goes_on_with_another_slicer(logics, engine, cases):
    engine("progress", "work=0.3")
    before, after = logics
    first, *_others = _queued(before, cases, "a", "b", "c")
    for job in before.jobs:  # the first Slicer is gone
        job.stopFollowing()
    before.jobs.clear()
    found = after.findRunning()
    assert [job.modelName for job in found] == ["a", "b", "c"]
    _until(lambda: all(job.ended for job in found), *found)
    assert [job.result for job in found] == ["a", "b", "c"]
    first._process.waitForExit(5)


def test_two_slicers_start_a_waiting_run_once(logics, engine, cases, tmp_path):
    engine(f"grandchild={tmp_path / 'first'}", "work=60")
    one, other = logics
    first, *mine = _queued(one, cases, "a", "b", "c")
    theirs = [job for job in other.findRunning() if job.modelName != "a"]
    first.cancel()
    engine("work=60")
    _until(lambda: "running" in _states(one).values(), *mine, *theirs)
    for _time in range(10):
        for job in (*mine, *theirs):
            job.poll()
    started = [job.modelName for job in (*mine, *theirs) if job._process is not None]
    assert started == ["b"] and sorted(_states(one).values()) == ["running", "stopped", "waiting"]


def test_a_run_that_leaves_the_queue_in_another_slicer_is_followed_there_too(logics, engine, cases):
    engine("work=60")
    one, other = logics
    _first, second = _queued(one, cases, "a", "b")
    found = next(job for job in other.findRunning() if job.modelName == "b")
    assert not found.poll() and found.status.state == "waiting"
    one.startRunNow(second.id)
    _until(lambda: found.status.state == "running", found)
    found.cancel()
    _until(lambda: second.ended, second)


def test_cancelling_while_it_is_queued_leaves_no_run(logic, engine, cases, monkeypatch):
    import slicer

    engine("work=60")
    monkeypatch.setattr(slicer.app, "processEvents", logic.cancelHandOver)
    with pytest.raises(RunCancelled):
        _queued(logic, cases, "a")
    assert list(runs_folder().iterdir()) == []
