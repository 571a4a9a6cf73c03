"""One of several processes fails or is killed: the run says so, soon, and can be continued."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from torchrun_helpers import (
    INTERRUPTED,
    SOON_SECONDS,
    STEPS,
    ended,
    executed,
    figures,
    last_checkpoint,
    observed,
    pretraining,
    start,
    steps_reported,
    wait_for,
    write_corpus,
)

from medmae.run_folder import RunFolder

pytestmark = pytest.mark.remote


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def processes_of(run: RunFolder) -> list[int]:
    """The process ids that execute `run`, the main one first: what torchrun started."""
    main = run.state()["pid"]
    parent = _parent(main)
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [main, *(int(child) for child in children if int(child) != main and _executes(int(child), run))]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _executes(pid: int, run: RunFolder) -> bool:
    return str(run.path) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_a_failing_process_is_the_reason_that_the_run_gives_and_a_resume_forgets_it(corpus: str,
                                                                                   tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", INTERRUPTED, 12, corpus=corpus)
    begun = time.monotonic()
    code, _ = ended(start(run, 2, FAIL_RANK="1", FAIL_BATCH="6"), SOON_SECONDS)
    assert code != 0
    assert time.monotonic() - begun < SOON_SECONDS
    state = run.state()
    assert state["state"] == "failed"
    assert "Process 1" in state["reason"]
    assert "Input/output error: 'shard-00000.bin'" in state["reason"]
    assert "--resume" in state["remedy"]
    assert "shard-00000.bin" in run.log_file.read_text()

    executed(run, 2)
    assert run.state()["reason"] is None
    assert not list(run.failures.iterdir())
    assert [record["step"] for record in figures(run)] == list(range(1, 13))
    assert len(observed(run, 0)["draws"]) < 12  # it went on from a checkpoint


def test_a_failure_of_the_main_process_is_its_own_reason(corpus: str, tmp_path: Path) -> None:
    run = pretraining(tmp_path / "run", INTERRUPTED, STEPS, corpus=corpus)
    ended(start(run, 2, FAIL_RANK="0", FAIL_BATCH="3"), SOON_SECONDS)
    state = run.state()
    assert state["state"] == "failed"
    assert state["reason"] == "OSError: [Errno 5] Input/output error: 'shard-00000.bin'"


@pytest.mark.parametrize(("killed", "outcome"), [("other", "failed"), ("main", "interrupted")])
def test_a_killed_process_ends_the_run_soon_and_a_resume_continues_it(corpus: str, tmp_path: Path, killed: str,
                                                                      outcome: str) -> None:
    run = pretraining(tmp_path / "run", INTERRUPTED, STEPS, corpus=corpus)
    torchrun = start(run, 2)
    wait_for(lambda: steps_reported(run) >= 3)
    main, other = processes_of(run)
    os.kill(other if killed == "other" else main, signal.SIGKILL)
    code, _ = ended(torchrun, SOON_SECONDS)
    assert code != 0
    state = run.state()
    assert state["state"] == outcome
    assert "without saying why" in state["reason"]
    assert "--resume" in state["remedy"]
    assert not Path(f"/proc/{other}").exists()

    reached, reported = last_checkpoint(run), steps_reported(run)
    again = start(run, 1)
    wait_for(lambda: steps_reported(run) >= reported + 2)
    run.request_stop()
    assert ended(again)[0] == 0
    assert run.state()["state"] == "stopped"
    assert run.state()["step"] > reached


def test_a_signal_sent_to_every_process_and_repeated_by_torchrun_still_stops_gracefully(corpus: str,
                                                                                      tmp_path: Path) -> None:
    """Slurm signals all processes of a job step; torchrun then signals its own once more."""
    run = pretraining(tmp_path / "run", INTERRUPTED, STEPS, corpus=corpus)
    torchrun = start(run, 2)
    wait_for(lambda: steps_reported(run) >= 3)
    for pid in (*processes_of(run), torchrun.pid):
        os.kill(pid, signal.SIGTERM)
    ended(torchrun, SOON_SECONDS)
    state = run.state()
    assert state["state"] == "stopped"
    assert (run.checkpoints / f"step-{state['step']:08}.safetensors").is_file()
