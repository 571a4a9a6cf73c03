"""Run folders that are damaged, edited by hand, or written by a computer that cannot be trusted, hide no other run."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from MedMAETrainLib.LocalTrainingJob import LocalTrainingJob
from MedMAETrainLib.TrainLogic import TrainLogic
from run_fixtures import alive, runs_fixture  # noqa: F401 - a fixture

from medmae.run_folder import process_start

NO_RECORDS = [
    "[" * 8000, '{"step": 1, "total": NaN}', '{"step": 1, "total": "abc"}', '{"step": 1%s, "total": 3}' % ("0" * 400),
    '{"step": 1, "total": 5, "device": {"a": [1]}, "stage": ["x"], "eta_s": "soon"}', "[1, 2]",
    '{"step": true, "total": true}', '{"step": 5, "total": 1e999, "eta_s": Infinity}', '{"step": -5, "total": -3}']


@pytest.fixture
def logic(runs):
    logic = TrainLogic()
    yield logic
    for job in list(logic.jobs):
        job.stopFollowing()


@pytest.mark.parametrize("line", NO_RECORDS)
def test_progress_that_makes_no_sense_is_neither_shown_nor_in_the_way(logic, runs, line):
    run = runs.add("odd", "running")
    alive(run)
    (job,) = logic.findRunning()
    told = []
    job.progressed.connect(lambda fraction, _message: told.append(round(100 * fraction)))
    with open(run.progress_file, "a") as file:
        file.write(line + "\n")
    (entry,) = TrainLogic().runs()
    assert 0 <= entry.status.fraction <= 1 and entry.status.device is None or isinstance(entry.status.device, str)
    job.poll()
    with open(run.progress_file, "a") as file:
        file.write('{"step": 2, "total": 4}\n')
    job.poll()
    assert told[-1] == 50 and not job.ended


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"state": "foo"}', json.dumps(
    {"state": {"a": 1}, "updated": 1, "host": "h", "pid": 1, "pid_start": 1.0}), json.dumps(
    {"state": "stopped", "step": "x", "total": "y", "updated": 1, "host": "h", "pid": 1, "pid_start": 1.0})])
def test_a_run_with_a_damaged_state_is_listed_and_can_be_removed(logic, runs, content):
    run = runs.add("odd", "running")
    run.state_file.write_text(content)
    logic.findRunning()
    for job in list(logic.jobs):
        job.poll()
    (entry,) = logic.runs()
    assert entry.status.isFinal and entry.status.fraction == 0 and not logic.jobs
    logic.removeRun(entry.id)
    assert logic.runs() == []


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"name": 5}', '{"name": "x", "unknown": 1}'])
def test_a_run_whose_request_is_damaged_counts_as_one_of_the_command_line(logic, runs, content):
    run = runs.add("odd", "stopped")
    (run.path / "slicer.json").write_text(content)
    (entry,) = logic.runs()
    assert (entry.id, entry.name, entry.status.state) == (run.path.name, run.path.name, "stopped")
    assert logic.fetchRun(entry.id).modelName == run.path.name


@pytest.mark.parametrize("file", ["spec.json", "job.json"])
def test_a_run_that_cannot_be_read_says_so(logic, runs, file):
    run = runs.add("odd")
    (run.path / file).write_text("{}")
    (entry,) = logic.runs()
    assert (entry.name, entry.status.state, entry.canResume) == ("odd", "failed", False) and entry.status.reason


@pytest.mark.parametrize("file", ["spec.json", "slicer.json", "state.json"])
def test_a_damaged_run_in_the_queue_holds_nobody_up(logic, runs, monkeypatch, file):
    damaged, whole = (runs.add(name, "queued", waits=True) for name in ("damaged", "whole"))
    os.utime(damaged.path / "WAITING", (1, 1))
    (damaged.path / file).write_text("no JSON")
    started = []
    monkeypatch.setattr(LocalTrainingJob, "start", lambda job: started.append(job.modelName))
    jobs = logic.findRunning()
    for job in jobs:
        job.poll()
    assert started == ["whole"] and not (whole.path / "WAITING").exists()


def test_what_waits_for_a_run_of_another_slicer_sees_to_that_one(logic, runs):
    alive(runs.add("runs", "running"))
    runs.add("of a Slicer that has ended since", "queued", waits=True)
    mine = runs.add("mine", "queued", waits=True)
    job = LocalTrainingJob(mine, listing=logic._listing)
    job.poll()
    logic._follow(job)
    assert [job.modelName for job in logic.jobs] == ["mine", "runs", "of a Slicer that has ended since"]


def test_after_the_computer_has_slept_a_run_that_lives_still_runs(logic, runs):
    run = runs.add("asleep", "running")
    alive(run)
    state = json.loads(run.state_file.read_text())
    run.state_file.write_text(json.dumps(state | {"updated": time.time() - 3600}))
    (entry,) = logic.runs()
    assert (entry.status.state, entry.canResume) == ("running", False)
    (job,) = logic.findRunning()
    assert not job.poll()
    for other in ({"pid_start": process_start(os.getpid()) + 1}, {"host": "not " + socket.gethostname()}):
        run.state_file.write_text(json.dumps(state | {"updated": time.time() - 3600} | other))
        assert TrainLogic().runs()[0].status.state == "interrupted"
