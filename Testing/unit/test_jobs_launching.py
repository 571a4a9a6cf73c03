"""run.sh, run by real shells. What it starts is a short program in the place of ``medmae.run``, so that it is quick."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmae.errors import BadInput
from medmae.jobs.launching import LaunchPlan, launch_script
from medmae.jobs.target import Target

HOSTILE = "-rf ; rm -rf x $(touch pwned) `touch pwned` 'one' \"two\"\nline \\ & | < > * ? ~ # % {} ä 肝"
SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
STAND_IN = """
import json, os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
plan = json.loads((folder / "spec.json").read_text())
names = ("PYTHONPATH", "MEDMAE_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "FROM_PREAMBLE")
(folder / "seen.json").write_text(json.dumps({"folder": str(folder), "cwd": os.getcwd(), "argv": sys.orig_argv,
                                              **{name: os.environ.get(name) for name in names}}))
time.sleep(plan.get("imports_s", 0))
(folder / "STOP").unlink(missing_ok=True)  # as the real one does with that of an earlier attempt
(folder / "begun").touch()
deadline = time.monotonic() + plan.get("runs_s", 0)
while time.monotonic() < deadline:
    if (folder / "STOP").exists():
        (folder / "stopped").touch()
        break
    time.sleep(0.02)
if "ends" in plan:
    (folder / "state.json").write_text(json.dumps({"state": plan["ends"]}))
sys.exit(plan.get("exit_code", 0))
"""


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code of 'another' version")
    (folder / "medmae").mkdir()
    (folder / "medmae" / "__init__.py").touch()
    (folder / "medmae" / "run.py").write_text(STAND_IN)
    return folder


class Launched:
    """A run folder with its run.sh."""

    def __init__(self, run: Path, code: Path, target: Target | None = None, parts: int | None = None,
                 **behaviour: Any) -> None:
        self.run = run
        self.folders = [run / "parts" / f"{part:02d}" for part in range(parts)] if parts else [run]
        for folder in self.folders:
            folder.mkdir(parents=True)
            (folder / "spec.json").write_text(json.dumps(behaviour))
        plan = LaunchPlan(str(run), str(code), sys.executable, "segment", parts)
        (run / "run.sh").write_text(launch_script(target or Target("here"), plan), encoding="utf-8")

    def start(self, shell: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([shell, "run.sh"], cwd=self.run, start_new_session=True, stdin=subprocess.DEVNULL,
                                env={**os.environ, "OMP_NUM_THREADS": ""})

    def code_of(self, shell: str) -> int:
        assert self.start(shell).wait(20) == int((self.run / "exit_code").read_text())
        return int((self.run / "exit_code").read_text())

    def seen(self, number: int = 0) -> dict[str, Any]:
        return json.loads((self.folders[number] / "seen.json").read_text())


def wait_until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_run_in_a_folder_with_a_hostile_name_gets_its_folder_its_code_and_its_home(
        tmp_path: Path, code: Path, shell: str) -> None:
    run = tmp_path / HOSTILE / "runs" / HOSTILE
    launched = Launched(run, code, Target("here", cpus=3, preamble=("export FROM_PREAMBLE='it is'",)))
    assert launched.code_of(shell) == 0
    seen = launched.seen()
    assert (seen["folder"], seen["cwd"], seen["FROM_PREAMBLE"]) == (str(run), str(run), "it is")
    assert seen["PYTHONPATH"].startswith(str(code)) and seen["MEDMAE_HOME"] == str(tmp_path / HOSTILE)
    assert seen["OMP_NUM_THREADS"] == "3"
    assert not list(tmp_path.rglob("pwned"))
    assert (run / "exit_code").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("code_of_the_run", [1, 2, 137])
def test_the_exit_code_of_the_run_is_left_behind(tmp_path: Path, code: Path, shell: str, code_of_the_run: int) -> None:
    assert Launched(tmp_path / "run", code, exit_code=code_of_the_run).code_of(shell) == code_of_the_run


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("to_the_whole_group", [False, True])
def test_a_signal_becomes_a_graceful_stop(tmp_path: Path, code: Path, shell: str, to_the_whole_group: bool) -> None:
    launched = Launched(tmp_path / "run", code, runs_s=20)
    process = launched.start(shell)
    wait_until(launched.run / "begun")
    for _ in range(2):  # impatient
        (os.killpg if to_the_whole_group else os.kill)(process.pid, signal.SIGTERM)
    assert process.wait(20) == 0
    assert (launched.run / "stopped").exists() and (launched.run / "exit_code").read_text() == "0\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_signal_before_the_run_has_begun_is_not_lost(tmp_path: Path, code: Path, shell: str) -> None:
    launched = Launched(tmp_path / "run", code, imports_s=1, runs_s=20)
    process = launched.start(shell)
    wait_until(launched.run / "seen.json")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert (launched.run / "stopped").exists()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("preamble", "expected"), [("exit 7", 7), ("echo 'never closed", 2), ("cd /nowhere", 0)])
def test_a_preamble_that_fails_leaves_an_exit_code_too(
        tmp_path: Path, code: Path, shell: str, preamble: str, expected: int) -> None:
    assert Launched(tmp_path / "run", code, Target("here", preamble=(preamble,))).code_of(shell) == expected


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path, code: Path) -> None:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    plan = LaunchPlan(str(tmp_path / "runs" / "r"), str(code), "/no/python", "segment")
    (tmp_path / "run.sh").write_text(launch_script(Target("here"), plan))
    assert subprocess.run(["sh", tmp_path / "run.sh"], capture_output=True, timeout=20).returncode == 127
    assert (tmp_path / "runs" / "r" / "exit_code").read_text() == "127\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_parts_run_at_the_same_time_each_with_a_card(tmp_path: Path, code: Path, shell: str) -> None:
    launched = Launched(tmp_path / "run", code, Target("here", gpus=2, cpus=6), parts=3)
    (launched.folders[1] / "state.json").write_text('{\n "state": "done"\n}')
    assert launched.code_of(shell) == 0
    assert [launched.seen(number)["CUDA_VISIBLE_DEVICES"] for number in (0, 2)] == ["0", "0"]
    assert launched.seen(0)["OMP_NUM_THREADS"] == "2"
    assert not (launched.folders[1] / "seen.json").exists()  # it was done


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("second", "is_executed"), [("done", True), ("failed", True), ("stopped", False)])
def test_when_all_parts_have_ended_the_run_itself_is_executed(
        tmp_path: Path, code: Path, shell: str, second: str, is_executed: bool) -> None:
    launched = Launched(tmp_path / HOSTILE, code, parts=2, ends="done")
    (launched.run / "spec.json").write_text('{"exit_code": 3}')
    (launched.folders[1] / "spec.json").write_text(json.dumps({"ends": second}))
    assert launched.code_of(shell) == (3 if is_executed else 0)
    assert (launched.run / "seen.json").exists() == is_executed


def test_cards_are_chosen_among_those_the_preamble_leaves(tmp_path: Path, code: Path) -> None:
    target = Target("here", gpus=2, preamble=("export CUDA_VISIBLE_DEVICES=5,7",))
    launched = Launched(tmp_path / "run", code, target, parts=2)
    assert launched.code_of("sh") == 0
    assert [launched.seen(number)["CUDA_VISIBLE_DEVICES"] for number in (0, 1)] == ["5", "7"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_signal_stops_all_parts_and_one_that_fails_is_the_exit_code(tmp_path: Path, code: Path, shell: str) -> None:
    launched = Launched(tmp_path / "run", code, parts=2, runs_s=20)
    (launched.folders[0] / "spec.json").write_text('{"exit_code": 1}')
    process = launched.start(shell)
    for folder in launched.folders:
        wait_until(folder / "begun")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 1
    assert (launched.folders[1] / "stopped").exists()


def test_words_of_a_container_come_before_the_interpreter(tmp_path: Path, code: Path) -> None:
    launched = Launched(tmp_path / "run", code, Target("here", container=("env", "FROM_PREAMBLE=a b'c")))
    assert launched.code_of("sh") == 0
    assert launched.seen()["FROM_PREAMBLE"] == "a b'c"


@given(st.text(st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)), min_size=1, max_size=20))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_a_folder_reaches_the_run_as_it_is(tmp_path: Path, code: Path, name: str) -> None:
    run = tmp_path / str(time.monotonic_ns()) / f"x{name}"
    launched = Launched(run, code)
    process = subprocess.run(["sh", "run.sh"], cwd=run, timeout=20)
    assert process.returncode == 0
    assert launched.seen()["folder"] == str(run)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_training_runs_under_torchrun_on_one_node(kind: Any) -> None:
    script = launch_script(Target("here", gpus=4), LaunchPlan("/h/runs/r", "/code", "/py", kind))
    assert ("/py -m torch.distributed.run --nproc-per-node=4 --max-restarts=0 --standalone --module medmae.run "
            '"$medmae_work"') in script
    assert "#SBATCH" not in script


def test_on_several_nodes_slurm_starts_one_torchrun_each_that_meet_on_the_first() -> None:
    target = Target("cluster", "slurm", gpus=2, nodes=3, cpus=8)
    script = launch_script(target, LaunchPlan("/h/runs/r", "/code", "/py", "pretrain"))
    assert "srun --nodes=3 --ntasks=3 --ntasks-per-node=1" in script and "--cpus-per-task=8" in script
    assert '--rdzv-endpoint="${address:-$first}:$port"' in script and "port=$((20000 + SLURM_JOB_ID % 10000))" in script


def test_paths_must_be_absolute_and_training_has_no_parts() -> None:
    for run, kind, parts in (("runs/r", "segment", None), ("/runs/r", "pretrain", 2), ("/runs/r", "segment", 0)):
        with pytest.raises(ValueError):
            LaunchPlan(run, "/code", "/py", kind, parts)  # type: ignore[arg-type]


def test_what_slurm_would_misread_is_refused_before_anything_is_sent() -> None:
    target = Target("cluster", "slurm", partition="gpu; rm -rf ~")
    with pytest.raises(BadInput, match="partition"):
        launch_script(target, LaunchPlan("/h/runs/r", "/code", "/py", "segment"))
