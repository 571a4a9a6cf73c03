"""Jobs of a real Slurm: submitted, followed, stopped, cancelled, refused. Training is in test_slurm_training.py.

The runs are of a short program that keeps to the protocol of run folders, so that nobody waits for torch.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import NODE, SlurmCluster
from slurm_helpers import SlurmRun, first_record, new_run, stand_in, wait_for

from medmae.errors import BadInput
from medmae.jobs.target import Target
from medmae.jobs.transport import connect

pytestmark = pytest.mark.remote
FOREVER = 600


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stand_in(tmp_path_factory.mktemp("code"))


@pytest.fixture
def submitted(slurm: SlurmCluster, tmp_path: Path, code: str) -> Callable[..., SlurmRun]:
    """Submits a run of the short program; `target` changes the target, the rest is for the program."""
    def make(target: Target | dict[str, Any] | None = None, **config: Any) -> SlurmRun:
        run = new_run(tmp_path / f"run{time.monotonic_ns()}", **config)
        return SlurmRun(slurm, run, slurm.target(**target) if isinstance(target, dict) else target, code).submit()
    return make


def test_a_job_sees_the_card_that_slurm_gives_it(submitted: Callable[..., SlurmRun]) -> None:
    job = submitted({"gpus": 1})
    job.wait_for_state("done")
    assert first_record(job.run)["cards"] == "0"
    assert (job.run.path / "exit_code").read_text() == "0\n"
    assert oct((job.run.path / f"slurm-{job.job}.txt").stat().st_mode)[-3:] == "600"


def test_a_cluster_behind_ssh_is_the_same(slurm: SlurmCluster, submitted: Callable[..., SlurmRun],
                                          ssh_target: Callable[..., Target]) -> None:
    job = submitted(ssh_target(kind="slurm", preamble=slurm.preamble))
    job.wait_for_state("done")
    assert job.poll()["slurm"]["jobs"][0]["nodes"] == NODE


def test_a_job_submitted_twice_runs_once_and_is_not_removed(submitted: Callable[..., SlurmRun]) -> None:
    job = submitted({"sbatch": ("--begin=now+1hour",)})
    assert job.call("slurm.submit") == {"job_id": job.job, "submitted": False}
    assert job.call("runs.start", scheduler="slurm") == {"started": False}
    with pytest.raises(BadInput, match="under way"):
        job.call("runs.remove")


@pytest.mark.parametrize(("wish", "told"), [
    ({"gpus": 2}, "No node has so many cards"),
    ({"partition": "nowhere"}, "See the partitions with sinfo"),
    ({"sbatch": ("--mem=9999G",)}, "ask for less"),
    ({"sbatch": ("--no-such-option=1",)}, "no-such-option")])
def test_a_wish_that_the_cluster_cannot_fulfil_is_told_at_once(
        submitted: Callable[..., SlurmRun], wish: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match="Slurm refuses the job") as refused:
        submitted(wish)
    assert told in str(refused.value)


def test_a_job_that_can_never_start_is_told_as_that(submitted: Callable[..., SlurmRun]) -> None:
    job = submitted({"nodes": 5})
    job.wait_for_state("queued")
    wait_for(lambda: "never starts" in job.poll()["state"]["reason"], lambda: str(job.poll()))
    assert job.state() == "queued"


def test_a_stop_ends_a_running_job_for_good(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    job.call("slurm.stop")
    slurm.run("scancel", "--batch", "--signal=USR1", job.job, check=False)  # the limit comes at the same time
    slurm.wait_for(job.job, "COMPLETED")
    assert job.state() == "stopped"
    assert slurm.show(job.job)["Restarts"] == "0"


def test_a_stop_takes_a_waiting_job_out_of_the_queue(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted({"sbatch": ("--begin=now+1hour",)})
    poll = job.poll()
    assert poll["state"]["state"] == "queued" and poll["state"]["reason"] == "It waits for its time to begin."
    job.call("slurm.stop")
    slurm.wait_for(job.job, "CANCELLED")
    assert job.state() == "stopped"


def test_a_stop_between_two_goes_ends_the_job_for_good(
        slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    slurm.run("scancel", "--batch", "--signal=USR1", job.job)
    slurm.wait_for(job.job, "PENDING")
    assert "goes on in about two minutes" in job.poll()["state"]["reason"]
    assert job.call("runs.stop") == {"asked": True}
    slurm.wait_for(job.job, "CANCELLED")
    assert job.state() == "stopped"
    job.start().wait_for_state("running")  # a job of its own


def test_scancel_is_a_graceful_stop(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    slurm.run("scancel", job.job)
    slurm.wait_for(job.job, "CANCELLED")
    job.wait_for_state("stopped")
    assert (job.run.path / "exit_code").read_text() == "0\n"


def test_a_killed_job_is_told_as_that_at_once(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    slurm.kill_job(job.job)
    job.wait_for_state("failed")
    state = job.poll()["state"]
    assert "exit code 137" in state["reason"] and "memory" in state["reason"] and "resume" in state["remedy"]


def test_a_job_that_slurm_has_forgotten_is_judged_by_its_folder(submitted: Callable[..., SlurmRun]) -> None:
    job = submitted()
    job.wait_for_state("done")
    (job.run.path / "slurm_job_id").write_text("4000000\n")
    assert job.state() == "done"
    job.run.write_state(state="running")
    assert job.state() == "running"  # this process lives
    job.run.write_state(state="queued")
    state = job.poll()["state"]
    assert state["state"] == "interrupted" and "does not know the job any more" in state["reason"]


def test_while_slurm_is_down_runs_are_followed_and_nothing_is_submitted(
        slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    slurm.stop_controller()
    try:
        poll = job.poll()
        assert poll["state"]["state"] == "running" and "does not answer" in poll["slurm"]["problem"]
        assert "does not answer" in job.call("slurm.facts")["problem"]
        with pytest.raises(BadInput, match="not answer"):
            job.call("slurm.submit")
    finally:
        slurm.start_controller()
    wait_for(lambda: job.poll()["slurm"]["problem"] is None, slurm.log)
    assert job.state() == "running"
    slurm.wait_for(job.job, "RUNNING")


def test_a_job_whose_time_ends_while_slurm_is_down_is_requeued_when_it_is_back(
        slurm: SlurmCluster, tmp_path: Path, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    script = slurm.script_of(job.job)
    slurm.stop_controller()
    try:
        os.kill(script, signal.SIGUSR1)
        wait_for(lambda: job.run.state()["state"] == "stopped", job.said)
        wait_for(lambda: f"for job {job.job}" in job.said(), job.said, 30)  # scontrol could not ask for another go
        poll = job.poll()
        assert poll["state"]["state"] == "queued" and "does not answer" in poll["slurm"]["problem"]
        waiting = SlurmRun(slurm, new_run(tmp_path / "waiting"))
        with pytest.raises(BadInput, match=r"not answer.*Try again"):
            waiting.submit()
    finally:
        slurm.start_controller()
    slurm.wait_for(job.job, "PENDING")
    assert job.poll()["slurm"]["jobs"][0]["restarts"] == 1


def test_a_cluster_says_what_it_has(slurm: SlurmCluster) -> None:
    facts = connect(slurm.target()).call("slurm.facts")
    assert facts["problem"] is None and facts["version"].startswith("slurm")
    assert {"name": "main", "is_default": True, "gres": "gpu:1", "time_limit": "1-00:00:00", "state": "up"} in facts[
        "partitions"]


def test_where_there_is_no_slurm_that_is_told(tmp_path: Path) -> None:
    target = Target("empty", "slurm", preamble=(f"PATH={tmp_path}",), python=sys.executable)
    facts = connect(target).call("slurm.facts")
    assert "sinfo was not found" in facts["problem"]


def test_parts_are_tasks_of_an_array_and_only_missing_ones_are_done_again(
        slurm: SlurmCluster, tmp_path: Path, code: str, hostile: str) -> None:
    run = new_run(tmp_path / hostile, endless_share=1)
    job = SlurmRun(slurm, run, code=code, parts=3).start()
    first = job.job
    wait_for(lambda: job.tasks() == {0: "COMPLETED", 1: "RUNNING", 2: "COMPLETED"}, lambda: str(job.poll()))
    state = job.poll()["state"]
    assert (state["state"], state["step"], state["total"]) == ("running", 20, 30)
    slurm.kill_job(slurm.show(f"{first}_1")["JobId"])
    job.wait_for_state("failed")
    assert job.poll()["state"]["reason"].startswith("1 of 3 parts: The job ended with exit code 137")
    (run.path / "go").touch()
    job.start()
    assert job.job != first
    job.wait_for_state("done")
    assert set(job.tasks()) == {1}
    assert run.state()["state"] == "done" and run.state()["slurm_job_id"] == slurm.show(f"{job.job}_1")["JobId"]
    assert not list(tmp_path.rglob("pwned"))


def test_a_stop_reaches_all_parts(slurm: SlurmCluster, tmp_path: Path, code: str) -> None:
    job = SlurmRun(slurm, new_run(tmp_path / "run", runs_s=FOREVER), code=code, parts=3, at_once=1).start()
    wait_for(lambda: set(job.tasks().values()) == {"PENDING", "RUNNING"}, lambda: str(job.poll()))
    job.wait_for_state("running")
    job.call("runs.stop")
    job.wait_for_state("stopped")
    assert set(job.tasks().values()) == {"COMPLETED", "CANCELLED"}


@pytest.mark.slow
def test_slurm_itself_tells_a_job_of_its_limit(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted({"time": "1"}, runs_s=FOREVER)
    slurm.wait_for(job.job, "PENDING", within_s=5)
    job.wait_for_state("running")
    slurm.wait_for(job.job, "PENDING", within_s=90)
    assert job.state() == "queued" and slurm.show(job.job)["Restarts"] == "1"


def test_a_node_that_comes_back_is_used_again(slurm: SlurmCluster, submitted: Callable[..., SlurmRun]) -> None:
    job = submitted(runs_s=FOREVER)
    job.wait_for_state("running")
    slurm.crash_node()
    slurm.run("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")
    job.wait_for_state("queued")
    slurm.start_node()
    slurm.wait_for(job.job, "RUNNING")
    job.wait_for_state("running")
    assert slurm.show(job.job)["Restarts"] == "1"
