"""Runs as jobs of the test cluster, through the transport alone."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurm_cluster import SlurmCluster
from torchrun_helpers import figures

import medmae
from medmae.files import write_json
from medmae.jobs.launching import LaunchPlan, launch_script
from medmae.jobs.target import Target
from medmae.jobs.transport import connect
from medmae.run_folder import Kind, RunFolder

CODE = str(Path(medmae.__file__).parents[1])
STAND_IN = """
import os, sys, time
from pathlib import Path
from medmae.run_folder import RunFolder
run = RunFolder(sys.argv[1])
run.write_state(state="running", step=0, total=10)
plan = run.spec["config"]
run.append_progress({"cards": os.environ.get("CUDA_VISIBLE_DEVICES")})
share = run.spec["inputs"].get("share")
if share and share[0] == plan.get("endless_share") and not (run.path.parents[1] / "go").exists():
    plan["runs_s"] = 600
deadline = time.monotonic() + plan.get("runs_s", 0)
while time.monotonic() < deadline:
    if run.stop_requested:
        run.write_state(state="stopped")
        sys.exit(0)
    time.sleep(0.05)
run.write_state(state="done", step=10)
"""


class SlurmRun:
    """A run on the test cluster.

    Args:
        slurm: the cluster.
        run: its folder, made by `RunFolder.create`.
        target: with what it is submitted.
        code: the folder that holds the package; the real one, or one with a short program in the place of
            ``medmae.run``.
    """

    def __init__(self, slurm: SlurmCluster, run: RunFolder, target: Target | None = None, code: str = CODE,
                 **plan: Any) -> None:
        self.slurm = slurm
        self.run = run
        self.target = target or slurm.target()
        if plan.get("parts"):
            write_json(run.path / "job.json", {"parts": plan["parts"]})
        script = launch_script(self.target, LaunchPlan(str(run.path), code, sys.executable, run.spec["kind"], **plan))
        (run.path / "run.sh").write_text(script, encoding="utf-8")

    def submit(self) -> SlurmRun:
        self.job = str(self.call("slurm.submit")["job_id"])
        return self

    def start(self) -> SlurmRun:
        """As whoever starts or resumes a job does."""
        assert self.call("runs.start", script=(self.run.path / "run.sh").read_text(encoding="utf-8"),
                         scheduler="slurm")["started"]
        self.job = (self.run.path / "slurm_job_id").read_text().strip()
        return self

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """An operation of ``medmae.jobs.there`` on this run."""
        return connect(self.target).call(operation, {"run": str(self.run.path), **arguments})

    def poll(self) -> dict[str, Any]:
        """What whoever follows the run gets."""
        told: dict[str, Any] = connect(self.target).call("runs.poll", {"runs": {"it": {"run": str(self.run.path)}}})
        return told["runs"]["it"]

    def tasks(self) -> dict[int, str]:
        """The states of the tasks of an array, in Slurm's words."""
        return {job["task"]: job["state"] for job in self.poll()["slurm"]["jobs"]}

    def state(self) -> str:
        return self.poll()["state"]["state"]

    def wait_for_step(self, step: int) -> None:
        wait_for(lambda: len(figures(self.run)) >= step, lambda: self.said())

    def wait_for_state(self, *states: str) -> None:
        wait_for(lambda: self.state() in states, lambda: f"{self.poll()} {self.said()}")

    def said(self) -> str:
        """What the job printed and logged."""
        files = [*self.run.path.glob("slurm-*.txt"), self.run.log_file]
        return "\n".join(file.read_text(errors="replace")[-3000:] for file in files if file.exists())


def stand_in(folder: Path) -> str:
    """A folder of code in which ``medmae.run`` is a short program that keeps to the protocol of run folders."""
    package = folder / "medmae"
    package.mkdir()
    for name in ("__init__.py", "errors.py", "files.py", "run_folder.py"):
        (package / name).write_text((Path(medmae.__file__).parent / name).read_text())
    (package / "run.py").write_text(STAND_IN)
    return str(folder)


def new_run(folder: Path, kind: Kind = "segment", **config: Any) -> RunFolder:
    return RunFolder.create(folder, kind, config, {})


def wait_for(condition: Callable[[], Any], otherwise: Callable[[], str], within_s: float = 240) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def first_record(run: RunFolder) -> dict[str, Any]:
    return json.loads(run.progress_file.read_text().splitlines()[0])
