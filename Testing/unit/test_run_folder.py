"""The run folder as a protocol: what is written, what a reader makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medmae.errors import BadInput
from medmae.run_folder import RunFolder, process_start


def test_a_new_run_is_queued_and_a_used_folder_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "a run; with 'odd' name", "segment", {"x": 1}, {"images": []})
    assert run.spec["kind"] == "segment"
    assert run.state()["state"] == "queued"
    with pytest.raises(BadInput, match="not empty"):
        RunFolder.create(run.path, "segment", {}, {})


def test_a_folder_without_a_specification_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run folder|not a run folder"):
        RunFolder.open(tmp_path)


def test_after_a_resume_the_last_line_of_a_step_counts_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.5), (2, 4.1), (3, 3.6)):
        run.append_progress({"step": step, "loss": loss})
    with open(run.progress_file, "a") as file:
        file.write('{"step": 4, "lo')
    assert [(record["step"], record["loss"]) for record in run.progress()] == [(1, 5.0), (2, 4.1), (3, 3.6)]


def test_the_last_record_is_of_the_last_stage_however_many_steps_earlier_ones_had(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    for record in ({"stage": "corpus", "step": 40}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}):
        run.append_progress(record)
    assert run.progress()[-1] == {"step": 2, "loss": 1.0}


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"kind": "pretrain", "config": [], "inputs": {}}'])
def test_a_damaged_specification_or_state_is_bad_input(tmp_path: Path, content: str) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    run.spec_file.write_text(content)
    run.state_file.write_text(content)
    with pytest.raises(BadInput, match=r"spec\.json"):
        _ = run.spec
    with pytest.raises(BadInput, match=r"state\.json is damaged"):
        run.state()


def test_running_with_a_dead_process_reads_as_interrupted(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    code = f"from medmae.run_folder import RunFolder; RunFolder({str(run.path)!r}).write_state(state='running')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert run.state()["state"] == "interrupted"
    assert "--resume" in run.state()["remedy"]


def test_running_but_silent_for_two_minutes_reads_as_interrupted(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "pretrain", {}, {})
    run.write_state(state="running")
    assert run.state()["state"] == "running"
    state = json.loads(run.state_file.read_text())
    run.state_file.write_text(json.dumps(state | {"updated": time.time() - 121}))
    assert run.state()["state"] == "interrupted"


def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    for _ in range(200):  # it is a zombie once it has ended, as nobody has waited for it
        if process_start(child.pid) is None:
            break
        time.sleep(0.05)
    assert process_start(child.pid) is None
    child.wait()
    assert process_start(os.getpid()) is not None
