"""Records of jobs: kept, found again, never leading out of the folder of runs; their processes live and end alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medmae.errors import BadInput
from medmae.jobs.job import Job, list_jobs, load_job, mirror_of, new_id
from medmae.jobs.target import Target
from medmae.jobs.there import runs
from medmae.jobs.there.processes import processes_of
from medmae.jobs.there.serving import Channel
from medmae.run_folder import RunFolder

pytestmark = pytest.mark.alone

CHANNEL = Channel(io.BytesIO(), io.BytesIO())
RUN = """
import sys, time
from medmae.run_folder import RunFolder
run = RunFolder(".")
run.write_state(state="running", step=0, total=100)
while not run.stop_requested:
    time.sleep(0.02)
run.write_state(state="stopped")
"""
DEAF = """
import signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
if len(sys.argv) < 2:  # a worker that leaves the session, as those of torchrun do
    subprocess.Popen([sys.executable, "-c", sys.orig_argv[2], "worker"], start_new_session=True)
from medmae.run_folder import RunFolder
if len(sys.argv) < 2:
    RunFolder(".").write_state(state="running", step=0, total=100)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDMAE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    return tmp_path / "home"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], RunFolder]]:
    begun: list[RunFolder] = []

    def start(program: str) -> RunFolder:
        run = RunFolder.create(tmp_path / f"run{len(begun)}", "finetune", {}, {})
        begun.append(run)
        assert begin(run, program)["started"]
        return run

    yield start
    for run in (each for each in begun if each.path.exists()):
        runs.kill({"run": str(run.path), "grace_s": 0}, CHANNEL)


def begin(run: RunFolder, program: str) -> dict[str, Any]:
    return runs.start({"run": str(run.path), "command": [sys.executable, "-c", program]}, CHANNEL)


def state_of(run: RunFolder) -> dict[str, Any]:
    return runs.poll({"runs": {"run": {"run": str(run.path)}}}, CHANNEL)["runs"]["run"]["state"]


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def a_job(name: str = "liver", **more: Any) -> Job:
    job = Job(new_id("finetune"), name, "finetune", Target("gpu-box", "ssh", "host"), time.time(), **more)
    job.save()
    return job


def test_a_job_is_found_by_its_id_an_end_of_it_and_its_name() -> None:
    job = a_job("Leber ä 肝")
    assert load_job(job.id) == load_job(job.id[-4:]) == load_job(job.id[:20]) == load_job(job.name) == job
    assert list_jobs() == [job]


def test_what_names_several_jobs_or_none_is_refused() -> None:
    first, second = a_job(), a_job()
    with pytest.raises(BadInput, match=first.id):
        load_job("liver")
    assert load_job(second.id) == second
    for wrong in ("", "spleen"):
        with pytest.raises(BadInput, match="knows no job"):
            load_job(wrong)


@pytest.mark.parametrize("name", ["../x", "/etc", "20261122-101500-finetune-3fa2/../..", "", "."])
def test_an_id_never_leads_out_of_the_folder_of_runs(name: str) -> None:
    with pytest.raises(BadInput, match="not the id"):
        mirror_of(name)


def test_a_damaged_record_does_not_hide_the_others(home: Path) -> None:
    job = a_job()
    broken = home / "runs" / new_id("segment")
    broken.mkdir()
    (broken / "job.json").write_text('{"id": 3')
    for text in ("null", "[1]", "3", "[" * 100_000, "1" * 5000):
        more = home / "runs" / new_id("segment")
        more.mkdir()
        (more / "job.json").write_text(text)
    other = home / "runs" / new_id("segment")
    other.mkdir()
    (other / "job.json").write_text((job.mirror / "job.json").read_text().replace(job.id, "../../x"))
    (home / "runs" / new_id("segment") / "job.json").mkdir(parents=True)
    assert list_jobs() == [job]


def test_a_run_is_started_once_stops_when_asked_and_starts_again(started: Callable[[str], RunFolder]) -> None:
    run = started(RUN)
    wait_until(lambda: state_of(run)["state"] == "running")
    assert not begin(run, RUN)["started"]
    with pytest.raises(BadInput, match="under way"):
        runs.remove({"run": str(run.path)}, CHANNEL)
    assert runs.stop({"run": str(run.path)}, CHANNEL)["asked"]
    wait_until(lambda: state_of(run)["state"] == "stopped")
    wait_until(lambda: not runs.stop({"run": str(run.path)}, CHANNEL)["asked"])  # when its process has ended as well
    assert begin(run, RUN)["started"]
    wait_until(lambda: state_of(run)["state"] == "running")


def test_a_run_is_removed_once_it_is_done_although_its_process_takes_a_moment_to_end(
        started: Callable[[str], RunFolder]) -> None:
    run = started("from medmae.run_folder import RunFolder\nRunFolder('.').write_state(state='done')\n"
                  "import time; time.sleep(1)")
    wait_until(lambda: state_of(run)["state"] == "done")
    assert runs.remove({"run": str(run.path)}, CHANNEL)["removed"] and not run.path.exists()


def test_a_run_that_was_asked_to_stop_reads_as_stopping_until_it_has(started: Callable[[str], RunFolder]) -> None:
    run = started(RUN.replace("while not run.stop_requested", "while True"))
    wait_until(lambda: state_of(run)["state"] == "running")
    runs.stop({"run": str(run.path)}, CHANNEL)
    assert state_of(run)["state"] == "stopping"


def test_a_hard_stop_also_ends_processes_that_are_deaf_and_left_the_session(
        started: Callable[[str], RunFolder]) -> None:
    run = started(DEAF)
    wait_until(lambda: state_of(run)["state"] == "running" and len(processes_of(run.path)) == 2)
    answer = runs.kill({"run": str(run.path), "grace_s": 0.3}, CHANNEL)
    assert len(answer["ended"]) == 2 and answer["left"] == []
    assert processes_of(run.path) == []
    assert state_of(run)["state"] == "interrupted"


def test_a_run_whose_process_ends_before_it_begins_has_failed_with_its_last_words(
        started: Callable[[str], RunFolder]) -> None:
    run = started("raise SystemExit('no module named torch')")
    wait_until(lambda: state_of(run)["state"] == "failed")
    assert "no module named torch" in state_of(run)["reason"]


def test_a_run_outlives_whoever_started_it_and_their_session(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "finetune", {}, {})
    starter = f"""
import io, os, sys
from medmae.jobs.there import runs
from medmae.jobs.there.serving import Channel
channel = Channel(io.BytesIO(), io.BytesIO())
runs.start({{"run": {str(run.path)!r}, "command": [sys.executable, "-c", {RUN!r}]}}, channel)
os.killpg(0, 9)
"""
    died = subprocess.run([sys.executable, "-c", starter], check=False, start_new_session=True)
    assert died.returncode == -9
    wait_until(lambda: state_of(run)["state"] == "running")
    runs.stop({"run": str(run.path)}, CHANNEL)
    wait_until(lambda: state_of(run)["state"] == "stopped")


def test_a_missing_or_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path / "whole", "finetune", {}, {})
    damaged = RunFolder.create(tmp_path / "damaged", "finetune", {}, {})
    damaged.state_file.write_text("{")
    asked = {name: {"run": str(tmp_path / name)} for name in ("whole", "damaged", "gone")}
    told = runs.poll({"runs": asked}, CHANNEL)["runs"]
    assert told["gone"] == {"missing": True}
    assert told["damaged"]["state"]["state"] == "interrupted" and "state" in told["damaged"]["state"]["reason"]
    assert told["whole"]["state"]["state"] == "queued" and whole.path.is_dir()


def test_making_a_run_again_leaves_what_is_there(tmp_path: Path) -> None:
    asked = {"folder": str(tmp_path / "there"), "id": "one", "spec": {"kind": "finetune", "config": {}, "inputs": {}},
             "job": {"id": "one"}, "files": {}}
    run = RunFolder(runs.create(asked, CHANNEL)["run"])
    run.write_state(state="stopped", step=7)
    runs.create(asked, CHANNEL)
    assert run.state()["step"] == 7
    listed = runs.listing({"folder": str(tmp_path / "there")}, CHANNEL)["runs"]
    assert listed == [{"job": {"id": "one"}, "run": str(run.path)}]
    assert json.loads(run.spec_file.read_text()) == asked["spec"]
    assert [entry.name for entry in (tmp_path / "there" / "runs").iterdir()] == ["one"]
