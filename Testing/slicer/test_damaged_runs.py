"""Run folders that are damaged, edited by hand, or written by a computer that cannot be trusted, hide no other run."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from MedMAETrainLib import RunRequest
from MedMAETrainLib.LocalTrainingJob import LocalTrainingJob
from MedMAETrainLib.TrainLogic import TrainLogic
from model_fixtures import write_model
from run_fixtures import alive, runs_fixture  # noqa: F401 - a fixture

from medmae.home import models_folder
from medmae.jobs import following
from medmae.jobs.conversation import OperationFailed
from medmae.models import load_info
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


def test_a_slicer_that_was_killed_after_taking_a_model_takes_it_once(logic, runs, monkeypatch):
    run = runs.add("livers")
    write_model(run.model)
    RunRequest.changeRequest(run.path, told=False)
    with monkeypatch.context() as patch:
        patch.setattr(RunRequest, "changeRequest", lambda *_each, **_changes: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            RunRequest.takeModel(run)
    assert RunRequest.takeModel(run) == "livers"
    other = runs.add("livers")
    write_model(other.model, created="2026-11-21T10:00:00+00:00")
    assert RunRequest.takeModel(other) == "livers 2"
    assert sorted(folder.name for folder in models_folder().iterdir()) == ["livers", "livers 2"]
    assert load_info(models_folder() / "livers 2").name == "livers 2"


def test_a_model_that_cannot_even_be_looked_at_ends_the_job(logic, runs, monkeypatch):
    run = runs.add("livers")
    RunRequest.changeRequest(run.path, told=False)
    monkeypatch.setattr("MedMAETrainLib.LocalTrainingJob.takeModel", lambda _run: {}["weights"])
    (job,) = logic.findRunning()
    while not job.poll():
        time.sleep(0.01)
    assert job.status.state == "failed" and isinstance(job.error, KeyError)


def test_a_run_of_another_computer_on_the_same_disk_is_asked_to_stop(logic, runs):
    run = runs.add("over there", "running")
    alive(run)
    state = json.loads(run.state_file.read_text()) | {"host": "workstation"}
    run.state_file.write_text(json.dumps(state))
    (entry,) = logic.runs()
    logic.cancelRun(entry.id)
    assert run.stop_requested and json.loads(run.state_file.read_text()) == state
    assert logic.runs()[0].status.state == "stopping"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OperationFailed("Traceback\nKeyError: x")])
def test_a_full_disk_or_a_fault_over_there_does_not_end_the_following(logic, runs, monkeypatch, error):
    runs.addRemote("far", "running")
    answers = [error, following.Status("stopped")]

    def follow(_job):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(following, "follow", follow)
    monkeypatch.setattr("MedMAETrainLib.RemoteTrainingJob.LOOK_EVERY_SECONDS", 0.3)
    (job,) = logic.findRunning()
    told = []
    job.changed.connect(lambda job: told.append((job.status.state, job.status.reason)))
    while not job.poll():
        time.sleep(0.01)
    assert [state for state, _reason in told] == ["unreachable", "stopped"]
    assert told[0][1].endswith(str(error).splitlines()[-1])
