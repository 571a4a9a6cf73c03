"""Submitting to this computer: at once, in processes that nothing takes along; refused, killed, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_training_data import write_pictures

from medmae.cli.app import run
from medmae.errors import BadInput
from medmae.folder_lock import only_writer
from medmae.jobs.following import Status, follow, log_of
from medmae.jobs.job import Job, list_jobs
from medmae.jobs.stopping import remove, resume, stop
from medmae.jobs.submission import submission_of, submit
from medmae.jobs.target import Target
from medmae.jobs.there.processes import note_launched, processes_of, start_detached
from medmae.run_folder import RunFolder

LOCAL = Target("local", gpus=0)
BAD = {"dataset": "/no/such/dataset.json", "model": "/no/such/model", "split": "test"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def interruptible() -> None:
    """Shells start what is in the background deaf to interrupts, and the tests with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.alone
def test_submitting_returns_at_once_and_the_job_goes_on_when_all_of_the_submitter_is_killed(tmp_path: Path) -> None:
    program = f"""
import os
from medmae.jobs.submission import submit
from medmae.jobs.target import Target
submit(Target("local", gpus=0), "evaluate", {{}}, {BAD!r}, name="scores")
os.killpg(0, 9)
"""
    begun = time.monotonic()
    died = subprocess.run([sys.executable, "-c", program], check=False, start_new_session=True)
    assert died.returncode == -9 and time.monotonic() - begun < 5
    (job,) = list_jobs()
    assert job.name == "scores"
    wait_until(lambda: follow(job).is_final)
    status = follow(job)
    assert status.state == "failed" and "/no/such/dataset.json" in (status.reason or "")
    assert "/no/such/dataset.json" in log_of(job)


def test_what_is_wrong_with_the_inputs_is_said_before_there_is_a_job(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_pictures(tmp_path, {"training": 2, "test": 1})
    for arguments in (
            ["finetune", "--dataset", "no.json", "--encoder", "none", "--method", "vis-mae", "--preset", "tiny"],
            ["finetune", "--dataset", str(dataset), "--encoder", "no-such-model"],
            ["finetune", "--dataset", str(dataset), "--encoder", "none", "--method", "vis-mae", "--preset", "tiny",
             "--subset", "n99"],
            ["finetune", "--dataset", str(dataset), "--encoder", "none", "--set", "no_such_key=1"],
            ["pretrain", "--images", "nothing-here", "--method", "vis-mae", "--preset", "tiny"],
            ["segment", "--model", "no-such-model", "--images", str(tmp_path)],
            ["segment", "--model", "x"],
            ["evaluate", "--model", "no-such-model", "--dataset", str(dataset)],
            ["curve", "--dataset", str(dataset), "--encoder", "no-such-model", "--cases", "1"],
            ["pretrain", "--resume", "--out", str(tmp_path / "run")],
            ["finetune", "--dataset", str(dataset), "--encoder", "none", "--method", "vis-mae", "--preset", "tiny",
             "--out", str(tmp_path)]):
        assert run([*arguments, "--target", "local"]) == 2, arguments
        assert run(["job", "submit", "local", *arguments]) == 2, arguments
        assert "Traceback" not in capsys.readouterr().err
    assert run(["segment", "--model", "x", "--images", "y", "--target", "no-such-target"]) == 2
    assert "no-such-target" in capsys.readouterr().err
    assert list_jobs() == []


def test_options_of_jobs_need_a_target_and_runs_here_need_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "--images", "x", "--method", "vis-mae", "--wait", "--out", "x"]) == 2
    assert "--target" in capsys.readouterr().err
    assert run(["segment", "--model", "x", "--images", "y", "--parts", "2", "--out", "x"]) == 2
    assert "--target" in capsys.readouterr().err
    assert run(["pretrain", "--images", "x", "--method", "vis-mae"]) == 2
    assert "Missing option '--out'" in capsys.readouterr().err


def test_a_job_is_trained_followed_fetched_and_removed_with_commands(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_pictures(tmp_path, {"training": 2})

    def said(*arguments: str) -> dict:
        assert run([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    submitted = said("job", "submit", "local", "finetune", "--dataset", str(dataset), "--encoder", "none", "--method",
                     "vis-mae", "--preset", "tiny", "--steps", "2", "--name", "up or down", "--out",
                     str(tmp_path / "results"), "--set", "batch_size=1")
    name = submitted["id"]
    assert submitted["state"] == "submitting"
    assert run(["job", "resume", name]) == 2
    assert "already" in capsys.readouterr().err
    assert run(["job", "fetch", name]) == 2
    assert "nothing to fetch yet" in capsys.readouterr().err
    outcome = said("job", "status", "up or down", "--wait")
    assert outcome["state"] == "done" and outcome["step"] == 2
    assert outcome["results"] == str(tmp_path / "results")
    assert (tmp_path / "results" / "model" / "model.json").is_file()
    assert [one["name"] for one in json.loads(_output(capsys, "model", "list", "--json"))] == ["up or down"]
    with only_writer(list_jobs()[0].mirror):  # again, while another client follows it: nothing changes
        assert said("job", "fetch", name)["results"] == str(tmp_path / "results")
    listed = json.loads(_output(capsys, "job", "list", "--json"))
    assert [(one["id"], one["state"]) for one in listed] == [(name, "done")]
    assert "trained 2 steps" in _output(capsys, "job", "logs", name)
    assert run(["job", "resume", name]) == 2
    assert run(["job", "remove", name, "--yes"]) == 0
    assert list_jobs() == [] and (tmp_path / "results" / "model").is_dir()


def _output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def slow_target(tmp_path: Path, seconds: int = 20) -> Target:
    """A target that is called as a remote one, and takes its time."""
    preamble = (f"sleep {seconds}",)
    return Target("slow", "slurm", folder=str(tmp_path / "there"), python=sys.executable, preamble=preamble)


@pytest.mark.alone
def test_a_killed_submission_is_interrupted_and_a_stopped_one_stopped_and_both_go_on(tmp_path: Path) -> None:
    job = submit(slow_target(tmp_path), "evaluate", {}, BAD)
    wait_until(lambda: submission_of(job).pid)
    assert follow(job).state == "submitting"
    with pytest.raises(BadInput, match="submitting already"):
        resume(job)
    with pytest.raises(BadInput, match="being submitted"):
        remove(job)
    os.kill(submission_of(job).pid or 0, signal.SIGKILL)
    wait_until(lambda: follow(job).state == "interrupted")
    resume(job)
    wait_until(lambda: submission_of(job).pid)
    assert stop(job)
    assert follow(job).state == "stopped"
    assert not stop(job)
    remove(job)
    assert list_jobs() == []


@pytest.mark.alone
def test_a_stop_before_the_submission_has_begun_holds(tmp_path: Path) -> None:
    job = submit(slow_target(tmp_path, seconds=4), "evaluate", {}, BAD)  # not seen before the call, it is seen after
    assert submission_of(job).pid is None
    assert stop(job)
    wait_until(lambda: not processes_of(job.mirror / "submission"), 30)
    assert follow(job).state == "stopped"


@pytest.mark.alone
def test_a_stop_in_the_moment_in_which_the_run_begins_reaches_the_run(tmp_path: Path) -> None:
    job = submit(LOCAL, "evaluate", {}, BAD)
    wait_until(lambda: submission_of(job).is_over and follow(job).is_final and not processes_of(job.mirror))
    record = json.loads((job.mirror / "submission.json").read_text()) | {"stage": "starting"}  # killed before the end
    (job.mirror / "submission.json").write_text(json.dumps(record))
    assert stop(job) and follow(job).state == "stopped"
    (job.mirror / "submission.json").write_text(json.dumps(record))
    started = start_detached(["sleep", "60"], job.mirror, job.mirror / "output.txt")
    note_launched(job.mirror, started)
    RunFolder(job.mirror).write_state(state="queued")
    assert stop(job) and (job.mirror / "STOP").exists()
    assert follow(job).state == "queued"  # the run that has begun is what counts again
    os.kill(started, signal.SIGKILL)


@pytest.mark.alone
def test_an_interrupt_only_ends_the_watching(tmp_path: Path) -> None:
    job = submit(slow_target(tmp_path), "evaluate", {}, BAD)
    watcher = subprocess.Popen([sys.executable, "-m", "medmae.cli", "job", "status", job.id, "--wait"],
                               stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    assert watcher.stderr is not None
    assert "connecting" in watcher.stderr.readline()
    watcher.send_signal(signal.SIGINT)
    said = watcher.communicate(timeout=20)[1]
    assert watcher.returncode == 1 and f"medmae job stop {job.id}" in said and "Traceback" not in said
    assert follow(job).state == "submitting"
    stop(job)


@pytest.mark.alone
def test_two_processes_do_not_submit_the_same_job(tmp_path: Path) -> None:
    job = submit(slow_target(tmp_path), "evaluate", {}, BAD)
    wait_until(lambda: submission_of(job).pid)
    first = submission_of(job).pid
    second = subprocess.run([sys.executable, "-m", "medmae.jobs.submission", job.id], capture_output=True, text=True,
                            check=False)
    assert second.returncode != 0 and submission_of(job).pid == first
    stop(job)


def test_what_is_wrong_with_the_target_ends_the_submission_with_a_remedy(tmp_path: Path) -> None:
    wrong = Target("wrong", "slurm", folder=str(tmp_path / "there"), python="/no/such/python")
    job = submit(wrong, "evaluate", {}, BAD)
    wait_until(lambda: submission_of(job).is_over)
    status = follow(job)
    assert (status.state, submission_of(job).code) == ("failed", "no Python")
    assert "/no/such/python" in (status.reason or "") and f"medmae job resume {job.id}" in (status.remedy or "")


def test_a_followed_log_is_whole_when_the_run_begins_or_begins_anew(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    job = submit(slow_target(tmp_path), "evaluate", {}, BAD)
    stop(job)
    looks = iter([("output.txt", b"a\nb\n"), ("log.txt", b"1\nhal"), ("log.txt", b"1\nhalf\n\x1b[31m"),
                  ("log.txt", b"1\n"), ("log.txt", b"1\n2")])

    def look(_job: Job) -> Status:
        name, text = next(looks)
        (job.mirror / name).write_bytes(text)
        return Status("done" if text.endswith(b"2") else "running")

    monkeypatch.setattr("medmae.jobs.following.follow", look)
    monkeypatch.setattr("medmae.cli.job.FOLLOW_EVERY_SECONDS", 0)
    assert run(["job", "logs", job.id, "--follow", "--tail", "1"]) == 0
    assert capsys.readouterr().out.split() == ["b", "1", "half", "1", "2"]
