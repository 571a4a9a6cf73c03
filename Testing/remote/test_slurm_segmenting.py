"""Segmenting many cases as an array of Slurm: each task does its share, only missing cases are done again."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from slurm_cluster import SlurmCluster
from slurm_helpers import SlurmRun, wait_for

from medmae.run_folder import RunFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from tiny_training_data import blob_volume  # noqa: E402
from worker_helpers import tiny_model  # noqa: E402

pytestmark = pytest.mark.remote
CASES = 3


def test_an_array_segments_every_case_once_and_a_killed_task_does_only_what_is_missing(
        slurm: SlurmCluster, tmp_path: Path, hostile: str) -> None:
    tiny_model(tmp_path / "model")
    run = RunFolder.create(tmp_path / hostile / "run", "segment", {"device": "cpu"}, {
        "model": str(tmp_path / "model"), "images": ["inputs"], "out": "results", "resume": True})
    (run.path / "inputs").mkdir()
    for number in range(CASES):
        image, _ = blob_volume(number)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(run.path / "inputs" / f"case{number}.nii.gz"))
    out = run.path / "results"
    job = SlurmRun(slurm, run, parts=2, at_once=1).start()
    wait_for(lambda: job.tasks() == {0: "COMPLETED", 1: "RUNNING"}, job.said)
    slurm.kill_job(slurm.show(f"{job.job}_1")["JobId"])  # while it imports torch
    job.wait_for_state("failed")
    first = {file.name: file.stat().st_mtime_ns for file in out.rglob("*.nii.gz")}
    assert sorted(first) == ["case0.nii.gz", "case2.nii.gz"]
    job.start()
    job.wait_for_state("done")
    assert set(job.tasks()) == {1}
    after = {file.name: file.stat().st_mtime_ns for file in out.rglob("*.nii.gz")}
    assert sorted(after) == [f"case{number}.nii.gz" for number in range(CASES)]
    assert {name: after[name] for name in first} == first  # not done again
    with open(out / "summary.csv", newline="") as table:
        assert len({row["image"] for row in csv.DictReader(table)}) == CASES
