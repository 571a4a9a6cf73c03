"""Training on a Slurm cluster: whatever ends a job, it goes on exactly where it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_cluster import NODE, PAIR, SlurmCluster
from slurm_helpers import SlurmRun, wait_for
from torchrun_helpers import assert_equal_losses, figures, pretraining, write_pictures

from medmae.run_folder import RunFolder

pytestmark = pytest.mark.remote
STEPS = 16
CONFIG = {"method": "vis-mae", "preset": "tiny", "precision": "fp32", "batch_size": 4, "modality": "DX",
          "checkpoint_every": 5}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "all", 16)


@pytest.fixture(scope="module")
def undisturbed(slurm_of_the_run: SlurmCluster, tmp_path_factory: pytest.TempPathFactory,
                pictures: list[str]) -> RunFolder:
    run = pretraining(tmp_path_factory.mktemp("undisturbed") / "run", CONFIG, STEPS, images=pictures)
    job = SlurmRun(slurm_of_the_run, run).submit()
    slurm_of_the_run.wait_for(job.job, "COMPLETED", "FAILED")
    assert job.state() == "done", job.said()
    return run


def test_a_job_that_is_told_of_its_time_limit_is_requeued_and_goes_on_exactly(
        slurm: SlurmCluster, tmp_path: Path, hostile: str, pictures: list[str], undisturbed: RunFolder) -> None:
    run = pretraining(tmp_path / hostile / "runs" / hostile, CONFIG, STEPS, images=pictures)
    job = SlurmRun(slurm, run).submit()
    job.wait_for_step(6)
    slurm.run("scancel", "--batch", "--signal=USR1", job.job)  # as Slurm does before the limit
    slurm.wait_for(job.job, "PENDING")
    wait_for(lambda: "two minutes" in (job.poll()["state"]["reason"] or ""), job.said)  # once Slurm has looked at it
    poll = job.poll()
    assert poll["state"]["state"] == "queued"
    assert poll["slurm"]["jobs"][0]["restarts"] == 1
    assert len(figures(run)) < STEPS
    slurm.wait_for(job.job, "COMPLETED", "FAILED")
    assert job.state() == "done", job.said()
    assert figures(run) == figures(undisturbed)
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.slow
def test_a_job_that_is_preempted_and_then_loses_its_node_goes_on_exactly(
        slurm: SlurmCluster, tmp_path: Path, pictures: list[str], undisturbed: RunFolder) -> None:
    run = pretraining(tmp_path / "run", CONFIG, STEPS, images=pictures)
    job = SlurmRun(slurm, run, slurm.target(cpus=None, sbatch=("--exclusive",))).submit()
    job.wait_for_step(4)
    slurm.run("sbatch", "--partition=urgent", "--exclusive", "--wrap=true", "--output=/dev/null")
    slurm.wait_for(job.job, "PENDING")
    preempted_at = len(figures(run))
    assert 4 <= preempted_at < STEPS
    assert list(run.checkpoints.glob(f"step-*{preempted_at}.safetensors")), "no checkpoint of that step"
    slurm.wait_for(job.job, "RUNNING")
    job.wait_for_step(preempted_at + 2)
    slurm.crash_node()
    slurm.run("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")
    slurm.wait_for(job.job, "PENDING")
    assert job.state() == "queued"
    slurm.start_node()
    slurm.wait_for(job.job, "COMPLETED", "FAILED")
    assert job.state() == "done", job.said()
    assert figures(run) == figures(undisturbed)
    assert job.poll()["slurm"]["jobs"][0]["restarts"] == 2


def test_two_nodes_train_together_stop_together_and_go_on_together(
        slurm: SlurmCluster, tmp_path: Path, pictures: list[str], undisturbed: RunFolder) -> None:
    run = pretraining(tmp_path / "run", CONFIG, STEPS, images=pictures)
    job = SlurmRun(slurm, run, slurm.target(nodes=2, partition=PAIR)).submit()
    job.wait_for_step(3)
    assert job.poll()["slurm"]["jobs"][0]["nodes"] == "n[1-2]"
    slurm.run("scancel", "--full", "--signal=USR1", job.job)  # to everything: torchrun alone would die of it
    slurm.wait_for(job.job, "PENDING")
    assert len(figures(run)) < STEPS
    slurm.wait_for(job.job, "COMPLETED", "FAILED")
    assert job.state() == "done", job.said()
    assert_equal_losses(figures(undisturbed), figures(run), 1e-3)
