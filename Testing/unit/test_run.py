"""Executing run folders: exit codes, states, stop, kill -9 and resume, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_training_data import write_volumes

from medmae import run as medmae_run
from medmae.errors import BadInput
from medmae.files import atomic_path
from medmae.run_folder import RunFolder

SMALL_GL = {"method": "gl-mae", "preset": "tiny", "batch_size": 2, "checkpoint_every": 2,
            "settings": {"global_views": 1, "local_views": 1}}
SMALL_VIS = {"method": "vis-mae", "preset": "tiny", "batch_size": 2, "checkpoint_every": 2}


def pretraining(folder: Path, dataset: Path, config: dict, steps: int) -> RunFolder:
    return RunFolder.create(folder, "pretrain", {**config, "steps": steps}, {"dataset": str(dataset)})


def losses(run: RunFolder) -> list[dict]:
    keep = ("seconds", "eta_s", "data_wait_s", "memory_bytes")
    return [{key: value for key, value in record.items() if key not in keep}
            for record in run.progress() if "loss" in record]


def start(folder: Path, *before: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *before, "-m", "medmae.run", str(folder)],
                            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_killed_in_the_middle_and_resumed_the_losses_are_bit_identical(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"unlabeled": 3})
    whole = pretraining(tmp_path / "whole", dataset, SMALL_GL, 9)
    assert start(whole.path).wait(timeout=240) == 0

    broken = pretraining(tmp_path / "broken", dataset, SMALL_GL, 9)
    process = start(broken.path)
    wait_for(lambda: list(broken.checkpoints.glob("step-*.safetensors")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert broken.state()["state"] == "interrupted"
    assert len(losses(broken)) < 9
    assert start(broken.path).wait(timeout=240) == 0

    assert losses(broken) == losses(whole)
    assert len(losses(whole)) == 9
    weights = [(run.model / "weights.safetensors").read_bytes() for run in (whole, broken)]
    assert weights[0] == weights[1]


def test_a_stop_is_graceful_and_can_be_resumed(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 400)
    process = start(run.path)
    wait_for(lambda: len(losses(run)) >= 2)
    run.request_stop()
    assert process.wait(timeout=60) == 0
    state = run.state()
    assert state["state"] == "stopped"
    assert 0 < state["step"] < 400
    assert list(run.checkpoints.glob(f"step-{state['step']:08d}.safetensors"))
    assert not run.model.exists()


def test_ctrl_c_stops_gracefully(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 400)
    process = start(run.path)
    wait_for(lambda: len(losses(run)) >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert run.state()["state"] == "stopped"


def test_two_gloo_processes_under_torchrun_train_like_one(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"unlabeled": 4})
    config = {**SMALL_VIS, "settings": {"crop_scale": [1.0, 1.0]}}
    alone = pretraining(tmp_path / "alone", dataset, config, 2)
    pair = pretraining(tmp_path / "pair", dataset, config, 2)
    assert start(alone.path).wait(timeout=240) == 0
    torchrun = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                               "-m", "medmae.run", str(pair.path)],
                              env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert torchrun.returncode == 0, torchrun.stderr[-2000:]
    assert pair.state()["state"] == "done"
    one, two = losses(alone), losses(pair)
    assert len(two) == 2
    assert [record["loss"] for record in one] == pytest.approx([record["loss"] for record in two], rel=1e-4)
    assert (pair.model / "model.json").is_file()


def test_bad_input_ends_with_code_2_and_its_reason(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", tmp_path / "missing.json", SMALL_GL, 2)
    assert medmae_run.execute(run.path) == 2
    state = run.state()
    assert state["state"] == "failed"
    assert "missing.json" in state["reason"]


def test_an_unknown_option_key_lists_the_valid_ones(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {"stepz": 3}, {})
    assert medmae_run.execute(run.path) == 2
    assert "stepz" in run.state()["reason"]
    assert "steps" in run.state()["reason"]


def test_a_zero_byte_checkpoint_is_bad_input(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 2)
    run.checkpoints.mkdir()
    (run.checkpoints / "step-00000001.safetensors").touch()
    assert medmae_run.execute(run.path) == 2
    assert "cannot be read" in run.state()["reason"]


def test_what_a_killed_attempt_left_half_written_is_gone_after_the_next(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 1)
    half = run.checkpoints / ".partial-abc-step-00000001.safetensors"
    half.parent.mkdir()
    half.write_bytes(b"half")
    (run.path / ".partial-model" / "new").mkdir(parents=True)
    assert medmae_run.execute(run.path) == 0
    assert not list(run.path.rglob(".partial-*"))


def test_what_others_are_writing_when_a_run_begins_stays_theirs(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {"steps": 0}, {"images": ["/nowhere"]})
    with atomic_path(run.path / "status.json") as record:  # as one who follows the run does
        record.write_text("{}")
        assert medmae_run.execute(run.path) == 2
    assert (run.path / "status.json").read_text() == "{}"


def test_a_run_whose_state_was_lost_is_executed_again(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", tmp_path / "missing.json", SMALL_GL, 2)
    run.state_file.unlink()
    assert medmae_run.execute(run.path) == 2
    assert "missing.json" in run.state()["reason"]


def test_a_fault_ends_with_code_1_and_a_traceback_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 2)

    def break_down(*_args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("medmae.pretraining.run.train", break_down)
    assert medmae_run.execute(run.path) == 1
    assert "disk space" in run.state()["remedy"]
    assert "Traceback" in run.log_file.read_text()


def test_a_signal_that_comes_while_a_run_says_how_it_failed_does_not_keep_it_from_that(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pretraining(tmp_path / "run", tmp_path / "missing.json", SMALL_GL, 2)
    ends: list[int] = []
    write = RunFolder.write_state

    def write_after_a_signal(folder: RunFolder, **changes: object) -> None:
        if changes.get("state") == "failed":  # torchrun has just missed another process
            os.kill(os.getpid(), signal.SIGTERM)
        write(folder, **changes)

    monkeypatch.setattr(RunFolder, "write_state", write_after_a_signal)
    before = signal.signal(signal.SIGTERM, lambda number, _frame: ends.append(number))  # what would end the process
    try:
        assert medmae_run.execute(run.path) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert run.state()["state"] == "failed" and not ends


def test_a_run_that_goes_on_elsewhere_is_not_started_twice(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        from medmae.run_folder import process_start

        state = json.loads(run.state_file.read_text())
        state.update(state="running", pid=sleeper.pid, pid_start=process_start(sleeper.pid), updated=time.time())
        run.state_file.write_text(json.dumps(state))
        with pytest.raises(BadInput, match="going on already"):
            medmae_run.execute(run.path)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert run.state()["state"] == "interrupted"


@pytest.mark.parametrize(("job", "goes_on"), [("17", True), ("18", False), (None, False)])
def test_a_slurm_job_goes_on_at_once_after_the_node_of_its_earlier_go_failed(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, goes_on: bool) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    state = json.loads(run.state_file.read_text())
    state.update(state="running", host="the node that failed", pid=1, updated=time.time(), slurm_job_id="17")
    run.state_file.write_text(json.dumps(state))
    monkeypatch.setenv("SLURM_JOB_ID", job) if job else monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if goes_on:
        assert medmae_run.execute(run.path) == 2  # it begins, and finds that its specification lacks everything
        assert "going on already" not in run.state()["reason"]
    else:
        with pytest.raises(BadInput, match="going on already"):
            medmae_run.execute(run.path)


def test_a_child_ends_when_its_parent_disappears(tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", write_volumes(tmp_path, {"unlabeled": 2}), SMALL_VIS, 4000)
    child = subprocess.Popen([sys.executable, "-m", "medmae.run", str(run.path), "--exit-with-parent"],
                             stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(lambda: run.state()["state"] == "running")
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(timeout=60) != 0


def test_the_heartbeat_goes_on_when_the_disk_is_full_for_a_while(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    beats = []

    def beat() -> None:
        beats.append(len(beats))
        if len(beats) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(medmae_run, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(run, "write_state", beat)
    with medmae_run._heartbeat(run, is_main=True):
        wait_for(lambda: len(beats) > 2)
    assert beats[:3] == [0, 1, 2]
