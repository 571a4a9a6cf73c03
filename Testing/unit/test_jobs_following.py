"""Following a job: every byte once, whatever is killed in between, and nothing lost where nobody answers."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmae.folder_lock import only_writer
from medmae.jobs import following
from medmae.jobs.attaching import attach, jobs_on
from medmae.jobs.following import follow, follow_all, log_of
from medmae.jobs.job import Job, new_id
from medmae.jobs.submission import Submission, submission_of
from medmae.jobs.target import Target
from medmae.jobs.there import runs
from medmae.jobs.there.serving import Channel
from medmae.jobs.told import printable
from medmae.run_folder import RunFolder

CHANNEL = Channel(io.BytesIO(), io.BytesIO())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def a_target(tmp_path: Path, **more: Any) -> Target:
    """A target that is called as a remote one is, without a server between."""
    return Target(**{"name": "there", "kind": "slurm", "folder": str(tmp_path / "there"), "python": sys.executable,
                     **more})


def a_job(tmp_path: Path, **more: Any) -> tuple[Job, RunFolder]:
    """A job that is submitted, and its run folder on the target."""
    job_id = new_id("finetune")
    made = runs.create({"folder": str(tmp_path / "there"), "id": job_id, "files": {},
                        "spec": {"kind": "finetune", "config": {}, "inputs": {}},
                        "job": {"id": job_id, "kind": "finetune", "created": 1.0, "parts": None}}, CHANNEL)
    job = Job(job_id, "liver", "finetune", a_target(tmp_path, **more), time.time(), folder=made["run"])
    job.save()
    return job, RunFolder(made["run"])


def test_what_is_written_there_is_here_after_each_look(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    assert follow(job).state == "queued"
    run.write_state(state="running", step=3, total=9)
    run.append_progress({"stage": "train", "step": 3, "total": 9, "eta_s": 12.5})
    run.log_file.write_bytes(b"one\nhalf a li")
    status = follow(job)
    assert (status.state, status.stage, status.step, status.total, status.eta_s) == ("running", "train", 3, 9, 12.5)
    with open(run.log_file, "ab") as log:
        log.write(b"ne\n")
    run.write_state(state="done")
    assert follow(job).state == "done"
    mirror = RunFolder(job.mirror)
    assert mirror.progress() == run.progress() and mirror.state()["state"] == "done"
    assert log_of(job) == "one\nhalf a line\n"


def test_a_failure_names_cases_as_they_are_called_here(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    (job.mirror / "cases.json").write_text(json.dumps({
        "cases": {"case-0001": {"images": ["/own/Meier.nii.gz"]}}, "subjects": {}, "unreadable": []}))
    run.write_state(state="failed", reason=f"{run.path}/inputs/images/case-0001.nrrd: too small.")
    assert follow(job).reason == "/own/Meier.nii.gz: too small."


def test_a_remedy_is_in_words_of_jobs(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    run.write_state(state="stopped", reason="As asked.", remedy="Continue it with --resume.")
    assert follow(job).remedy == f"Continue it with medmae job resume {job.id}."


@given(steps=st.lists(st.one_of(
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("anew"), st.binary(max_size=40)),
    st.tuples(st.just("look, killed after"), st.integers(0, 60)),
    st.tuples(st.just("look"), st.just(b""))), max_size=12))
def test_the_mirror_has_every_byte_once_whatever_was_killed_in_the_middle_of_writing(
        steps: list[tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDMAE_HOME", str(folder / "home"))
        patch.setattr(runs, "BYTES_A_POLL", 16)
        job, run = a_job(folder)

        def look(allowed: int | None = None) -> None:
            while True:
                asked = {"run": {"run": str(run.path), "have": following._have(job)}}
                told = runs.poll({"runs": asked}, CHANNEL)["runs"]["run"]
                if allowed is not None:  # what kill -9 leaves of an append: a beginning of it
                    for news in told["new"].values():
                        news["data"] = _first(news["data"], allowed)
                following._mirror(job, told)
                if not told["more"] or allowed is not None:
                    return

        run.log_file.write_bytes(b"")
        for what, value in steps:
            if what == "append":
                with open(run.log_file, "ab") as file:
                    file.write(value)
            elif what == "anew":
                run.log_file.write_bytes(value)
            else:
                look(value if what != "look" else None)
        look()
        mirrored = job.mirror / "log.txt"
        assert (mirrored.read_bytes() if mirrored.exists() else b"") == run.log_file.read_bytes()


def _first(data: str, count: int) -> str:
    import base64

    return base64.b64encode(base64.b64decode(data)[:count]).decode()


def test_more_than_fits_into_one_answer_comes_in_several(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    content = os.urandom(2 * runs.BYTES_A_POLL + 12345)
    run.log_file.write_bytes(content)
    follow(job)
    assert (job.mirror / "log.txt").read_bytes() == content


def test_clients_at_the_same_time_do_not_write_twice(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    clients = [threading.Thread(target=lambda: [follow(job) for _ in range(4)]) for _ in range(3)]
    for client in clients:
        client.start()
    for number in range(200):
        with open(run.log_file, "ab") as log:
            log.write(b"%d\n" % number)
        time.sleep(0.002)
    for client in clients:
        client.join()
    follow(job)
    assert (job.mirror / "log.txt").read_bytes() == run.log_file.read_bytes()


def test_a_client_that_may_not_write_still_knows_the_state(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    run.write_state(state="running", step=5, total=9)
    run.log_file.write_text("line\n")
    with only_writer(job.mirror):
        status = follow(job)
    assert (status.state, status.step) == ("running", 5)
    assert not (job.mirror / "log.txt").exists()


def test_a_target_writes_no_other_files_here(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    told = {"state": run.state(), "new": {name: {"from": 0, "data": "cHduZWQ="} for name in (
        "../pwned", "/tmp/pwned", "job.json", "cases.json", "spec.json", "slurm-../x.txt", "log.txt\n", "model")}}
    before = sorted(job.mirror.iterdir())
    following._mirror(job, told)
    assert sorted(job.mirror.iterdir()) == sorted([*before, job.mirror / "state.json"])
    assert not (job.mirror.parent / "pwned").exists()


def test_what_a_target_says_does_not_steer_the_terminal() -> None:
    assert printable("ä 肝\tok\n\x1b]0;title\x07\x1b[31mred\r\x9b1m") == "ä 肝\tok\n]0;title[31mred1m"


NONSENSE: list[Any] = [
    {}, {"runs": None}, {"runs": {"ID": []}}, {"runs": {"ID": {"state": "running"}}},
    {"runs": {"ID": {"state": {"state": ["running"]}}}}, {"runs": {"ID": {"state": {"state": "\x1b[31mrunning"}}}},
    {"runs": {"ID": {"state": {"state": "running"}, "new": {"log.txt": {"from": 1 << 60, "data": "YQ=="}}}}},
    {"runs": {"ID": {"state": {"state": "running"}, "new": {"log.txt": {"from": -1, "data": "YQ=="}}}}},
    {"runs": {"ID": {"state": {"state": "running"}, "new": {"log.txt": {"from": 0, "data": "YQ=" * (1 << 20)}}}}},
    {"runs": {"ID": {"state": {"state": "running"}, "new": {"log.txt": [1]}}}}]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_target_that_talks_nonsense_is_not_believed_and_hides_no_other_job(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: dict[str, Any]) -> None:
    job, run = a_job(tmp_path)
    run.write_state(state="running", step=5, total=9)
    follow(job)
    other = a_job(tmp_path, python="/usr/bin/env", name="elsewhere")[0]
    told = json.loads(json.dumps(nonsense).replace("ID", job.id))
    sane = following.operate
    monkeypatch.setattr(following, "operate",
                        lambda target, *rest: told if target == job.target else sane(target, *rest))
    status = follow(job)
    assert (status.state, status.last_state) == ("unreachable", "running") and "never says" in (status.reason or "")
    assert not (job.mirror / "log.txt").exists() or (job.mirror / "log.txt").stat().st_size == 0
    found = follow_all([job, other])
    assert found[other.id].state == "unreachable" and "/usr/bin/env" in (found[other.id].reason or "")


def test_odd_values_of_a_target_are_left_out_and_keep_nobody_from_looking_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, run = a_job(tmp_path)
    state = {"state": "running", "step": "3", "total": 10**400, "reason": ["\x1b[31m", float("nan")], "more": [[1e999]]}
    last = {"stage": "\x1b]0;x\x07train", "step": 2, "eta_s": float("nan"), "total": -1}
    told = {"runs": {job.id: {"state": state, "last": last, "slurm": {"jobs": [{"state": 3}, 4]}}}}
    with monkeypatch.context() as patch:
        patch.setattr(following, "operate", lambda *_: told)
        status = follow(job)
    assert (status.state, status.stage, status.step) == ("running", "]0;xtrain", 2)
    assert (status.total, status.eta_s) == (None, None) and "\x1b" not in str(dataclasses.asdict(status))
    assert follow(job).state == "queued"


def test_a_target_that_always_has_more_does_not_hold_up_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, _ = a_job(tmp_path)
    monkeypatch.setattr(following, "PIECES_A_LOOK", 3)
    monkeypatch.setattr(following, "operate", lambda *_: {"runs": {job.id: {
        "state": {"state": "running"}, "more": True, "new": {"log.txt": {"from": 0, "data": "YQ=="}}}}})
    assert follow(job).state == "running"


@pytest.mark.parametrize("record", ["submission.json", "status.json"])
@pytest.mark.parametrize("text", ["null", "[1]", '{"stage": 3}', "{", "[" * 100_000, "1" * 5000])
def test_a_damaged_record_of_a_job_hides_no_other_job(tmp_path: Path, record: str, text: str) -> None:
    job, run = a_job(tmp_path)
    damaged, _ = a_job(tmp_path, python="/no/such/python")
    (damaged.mirror / record).write_text(text)
    found = follow_all([job, damaged])
    assert found[job.id].state == "queued"
    assert found[damaged.id].state == ("interrupted" if record == "submission.json" else "unreachable")


def test_a_target_that_does_not_answer_changes_nothing_and_says_since_when(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    run.write_state(state="running", step=5, total=9)
    seen = follow(job)
    away = job.replace(target=a_target(tmp_path, python="/no/such/python"))
    status = follow(away)
    assert (status.state, status.last_state, status.step, status.seen) == ("unreachable", "running", 5, seen.seen)
    assert not status.is_final and "/no/such/python" in (status.reason or "")
    back = job.replace(target=job.target)
    assert follow(back).state == "running"


@pytest.mark.alone
def test_a_silent_target_does_not_hold_up_the_list(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    silent = [a_job(tmp_path, preamble=("sleep 30",))[0], a_job(tmp_path, preamble=("sleep 31",))[0]]
    run.write_state(state="running", step=5, total=9)
    begun = time.monotonic()
    found = follow_all([*silent, job], within_s=1.5)
    assert time.monotonic() - begun < 3
    assert [found[one.id].state for one in (*silent, job)] == ["unreachable", "unreachable", "running"]


def test_a_run_that_is_gone_there_is_said_to_be(tmp_path: Path) -> None:
    job, run = a_job(tmp_path)
    run.spec_file.unlink()
    status = follow(job)
    assert status.state == "interrupted" and "not on there any more" in (status.reason or "")


def test_a_job_of_another_computer_is_found_and_followed_with_a_neutral_name(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, run = a_job(tmp_path)
    run.log_file.write_text("line\n")
    (tmp_path / "there" / "runs" / "strange").mkdir()
    (tmp_path / "there" / "runs" / "strange" / "job.json").write_text('{"id": "../../pwned", "kind": "finetune"}')
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "other"))
    found = jobs_on(job.target)
    assert [one.id for one in found] == [job.id] and not (tmp_path / "other" / "runs").exists()
    follow_all(found)
    assert not (tmp_path / "other" / "runs").exists()
    attached = attach(job.id[-4:], job.target)
    assert attached.name == job.id and follow(attached).state == "queued"
    assert log_of(attached) == "line\n"


def test_a_submission_that_was_killed_reads_as_interrupted(tmp_path: Path) -> None:
    job, _ = a_job(tmp_path)
    record = {"stage": "upload", "done": 3, "total": 9, "pid": os.getpid(), "pid_start": -1.0, "updated": time.time()}
    (job.mirror / "submission.json").write_text(json.dumps(record))
    assert submission_of(job) == Submission(**record)
    status = follow(job)
    assert status.state == "interrupted" and f"medmae job resume {job.id}" in (status.remedy or "")
