"""Early stopping: the best weights become the model, a resumed run decides alike, and the score says what chose it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_encoder
from tiny_training_data import write_pictures
from torch import nn

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.errors import Stopped
from medmae.files import read_json
from medmae.finetuning import segmentation
from medmae.finetuning.classification import ClassificationTask
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.early_stopping import BestWeights
from medmae.models import load_info, load_state
from medmae.run_folder import RunFolder

QUICK = {"steps": 24, "validations": 12, "patience": 2, "batch_size": 4, "checkpoint_every": 3, "ema": 0.5,
         "learning_rate": 1e-3}


def pictures(folder: Path, config: dict | None = None, name: str = "run") -> RunFolder:
    """A run on pictures whose dataset and encoder lie in `folder`, made at the first call."""
    dataset = folder / "dataset.json"
    if not dataset.exists():
        write_pictures(folder, {"training": 8, "validation": 6})
        tiny_encoder(folder / "encoder", "vis-mae")
    return RunFolder.create(folder / name, "finetune", to_json(FinetuneConfig(**QUICK | (config or {}))),
                            {"dataset": str(dataset), "encoder": str(folder / "encoder")})


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float | None]) -> list[dict[str, torch.Tensor]]:
    """Let validations have these scores, and note the weights that each of them saw."""
    seen: list[dict[str, torch.Tensor]] = []

    def score(task: ClassificationTask, network: nn.Module) -> float | None:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return scores[len(seen) - 1]

    monkeypatch.setattr(ClassificationTask, "score", score)
    return seen


def records(run: RunFolder) -> list[dict]:
    keep = ("seconds", "eta_s", "data_wait_s", "memory_bytes")
    return [{key: value for key, value in record.items() if key not in keep}
            for record in run.progress() if "loss" in record]


def test_the_best_weights_are_kept_until_there_are_better_ones() -> None:
    network = nn.Linear(2, 2)
    best = BestWeights(network, patience=2)
    assert not best.is_known
    for step, (score, waited) in enumerate([(0.5, 0), (None, 0), (0.4, 1), (0.7, 0), (0.7, 1), (0.6, 2)], start=1):
        with torch.no_grad():
            network.weight.fill_(step)
        assert not best.is_exhausted
        best.note(step, score, network)
        assert int(best.waited) == waited
    assert best.is_exhausted and best.is_known
    assert float(best.network.weight[0, 0]) == 4 and int(best.step) == 4
    copy = BestWeights(network, patience=2)
    copy.load_state_dict(best.state_dict())
    assert copy.is_exhausted and copy.summary() == {"patience": 2, "best_step": 4, "best_score": 0.7}


def test_training_ends_when_validations_no_longer_improve_and_the_best_weights_become_the_model(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pictures(tmp_path)
    seen = scripted(monkeypatch, [0.5, 0.8, 0.7, 0.8])
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    assert records(run)[-1]["step"] == 8  # validations at 2, 4 (the best), 6 and 8; an equal score is not better
    weights = load_state(run.model)
    assert all(torch.equal(weights[name], value) for name, value in seen[1].items())
    assert not torch.equal(weights["head.weight"], seen[3]["head.weight"])
    info = load_info(run.model)
    assert info.training["flip_axes"] == []  # the side may be the class
    assert info.training["early_stopping"] == {"patience": 2, "best_step": 4, "best_score": 0.8, "stopped_at": 8}
    assert info.scores["validation"]["selected_on"] == "validation"
    assert "validations have not become better" in run.log_file.read_text()
    assert "chosen" in run.report.read_text()


def test_without_patience_nothing_is_chosen_by_the_validation_cases(tmp_path: Path) -> None:
    run = pictures(tmp_path, {"patience": None, "steps": 4, "validations": 2})
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    info = load_info(run.model)
    assert "early_stopping" not in info.training and "selected_on" not in info.scores["validation"]
    assert "no weights were chosen by them" in run.report.read_text()


def test_scores_that_do_not_exist_choose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pictures(tmp_path, {"steps": 6, "validations": 3, "patience": 1})
    seen = scripted(monkeypatch, [None] * 3)
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    assert len(seen) == 3 and records(run)[-1]["step"] == 6
    assert torch.equal(load_state(run.model)["head.weight"], seen[2]["head.weight"])


@pytest.mark.parametrize("stopped_before", [1, 2, 4])
def test_a_run_that_was_interrupted_decides_and_ends_as_one_that_was_not(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_before: int) -> None:
    scores = {2: 0.5, 4: 0.8, 6: 0.7, 8: 0.6}
    at = {"step": 0}
    validate = ClassificationTask.validate

    def validated(task: ClassificationTask, step: int) -> object:
        at["step"] = step
        return validate(task, step)

    monkeypatch.setattr(ClassificationTask, "validate", validated)
    monkeypatch.setattr(ClassificationTask, "score", lambda *_: scores[at["step"]])
    whole, broken = pictures(tmp_path, name="whole"), pictures(tmp_path, name="broken")
    assert medmae_run.execute(whole.path) == 0, whole.state()["reason"]
    with monkeypatch.context() as interrupted:
        after = ClassificationTask.after_step

        def stop(task: ClassificationTask, step: int, total: int) -> None:
            after(task, step, total)
            if step == 2 * stopped_before - 1:
                raise Stopped("killed")

        interrupted.setattr(ClassificationTask, "after_step", stop)
        assert medmae_run.execute(broken.path) == 0 and broken.state()["state"] == "stopped"
    assert medmae_run.execute(broken.path) == 0, broken.state()["reason"]
    assert records(broken) == records(whole)
    assert ((broken.model / "weights.safetensors").read_bytes() == (whole.model / "weights.safetensors").read_bytes())
    assert load_info(broken.model).training == load_info(whole.model).training
    # A run that was killed between its last checkpoint and its model does not train on
    broken.model.rename(tmp_path / "model before")
    assert medmae_run.execute(broken.path) == 0 and records(broken) == records(whole)
    assert load_info(broken.model).training == load_info(whole.model).training


@pytest.mark.slow
def test_all_processes_end_at_the_same_step(tmp_path: Path) -> None:
    run = pictures(tmp_path, {"learning_rate": 1e-9, "ema": 0.0})  # nothing improves
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "medmae.run",
         str(run.path)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    assert load_info(run.model).training["early_stopping"]["stopped_at"] == 6
    assert records(run)[-1]["step"] == 6


@pytest.mark.slow
def test_a_killed_run_repeats_its_validations_bit_for_bit(tmp_path: Path) -> None:
    whole, broken = pictures(tmp_path, name="whole"), pictures(tmp_path, name="broken")
    command = [sys.executable, "-m", "medmae.run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run([*command, str(whole.path)], env=environment, timeout=240).returncode == 0
    process = subprocess.Popen([*command, str(broken.path)], env=environment)
    while not list(broken.checkpoints.glob("step-*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert subprocess.run([*command, str(broken.path)], env=environment, timeout=240).returncode == 0
    assert records(broken) == records(whole)
    assert read_json(broken.path / "validation.json") == read_json(whole.path / "validation.json")


def test_validation_windows_overlap_as_in_inference() -> None:
    from medmae.inference.config import EvaluateConfig, SegmentConfig

    assert segmentation.OVERLAP == SegmentConfig().overlap == EvaluateConfig().overlap
