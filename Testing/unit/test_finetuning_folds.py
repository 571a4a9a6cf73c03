"""Cross-validation: who trains on what, scores of unseen cases, the ensemble as a model like any other, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_encoder
from tiny_training_data import write_pictures, write_volumes

from medmae import run as medmae_run
from medmae.cli.app import run as medmae_command
from medmae.config import to_json
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.folds import FoldRun
from medmae.finetuning.planning import make_plan
from medmae.inference.classifier import Classifier
from medmae.metrics import fit_temperature
from medmae.models import load_info, load_network, load_state
from medmae.models.checking import check_model
from medmae.run_folder import RunFolder
from medmae.volumes import read_image

FOLDS = {"folds": 3, "steps": 4, "validations": 0, "batch_size": 4, "checkpoint_every": 2}


def pictures(folder: Path, name: str = "run", counts: dict | None = None, **config: object) -> RunFolder:
    dataset = folder / "dataset.json"
    if not dataset.exists():
        write_pictures(folder, counts or {"training": 12, "validation": 4, "test": 4})
        tiny_encoder(folder / "encoder", "vis-mae")
    return RunFolder.create(folder / name, "finetune", to_json(FinetuneConfig(**{**FOLDS, **config})),  # type: ignore[arg-type]
                            {"dataset": str(dataset), "encoder": str(folder / "encoder")})


def done(run: RunFolder) -> RunFolder:
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    assert run.state()["state"] == "done", run.state()["reason"]
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return done(pictures(tmp_path_factory.mktemp("folds")))


def fold_models(run: RunFolder) -> list[Path]:
    return [run.path / "folds" / str(number) / "model" for number in (1, 2, 3)]


def test_every_case_is_held_out_once_and_subjects_and_classes_are_parted_fairly(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 12})
    text = dataset.read_text()
    for number in range(0, 12, 2):  # two pictures, one of each class, a subject
        text = text.replace(f'"s{number + 1}"', f'"s{number}"')
    dataset.write_text(text)
    plans = [make_plan(FinetuneConfig(), {"dataset": str(dataset), "fold": [number, 3]}) for number in (1, 2, 3)]
    held_out = [case.id for plan in plans for case in plan.held_out]
    assert len(held_out) == 12 and len(set(held_out)) == 12
    for plan in plans:
        assert len(plan.training) == 8
        assert not {case.subject for case in plan.training} & {case.subject for case in plan.held_out}
        assert sorted(case.class_value for case in plan.held_out) == [0, 0, 1, 1]
    again = make_plan(FinetuneConfig(), {"dataset": str(dataset), "fold": [2, 3]})
    assert again.held_out == plans[1].held_out
    for config, inputs in ((FinetuneConfig(), {"fold": [1, 7]}), (FinetuneConfig(folds=7), {})):
        with pytest.raises(BadInput, match="7 folds were asked for, but the cases come from 6 subjects"):
            make_plan(config, {"dataset": str(dataset), **inputs})


def test_a_fold_without_two_classes_to_train_on_is_named(tmp_path: Path) -> None:
    run = pictures(tmp_path, counts={"training": 2}, folds=2)
    assert medmae_run.execute(run.path) == 2
    assert "Fold 1 of 2 cannot be trained. The only training case" in run.state()["reason"]


def test_each_case_is_scored_by_the_model_that_has_not_seen_it(finished: RunFolder) -> None:
    scores = read_json(finished.path / "cross_validation.json")
    assert scores["metric"] == "auc" and len(scores["cases"]) == 12
    assert [(one["fold"], one["training_cases"], one["held_out_cases"]) for one in scores["folds"]] == [
        (1, 8, 4), (2, 8, 4), (3, 8, 4)]
    for case in scores["cases"]:
        plan = make_plan(FinetuneConfig(), {**finished.spec["inputs"], "fold": [case["fold"], 3]})
        assert case["subject"] not in {one.subject for one in plan.training}
        model = Classifier(fold_models(finished)[case["fold"] - 1], device="cpu")
        found = model.classify(read_image(finished.path.parent / case["image"]))
        assert found.probabilities == pytest.approx(case["probabilities"], abs=1e-4)
    low, high = scores["auc_interval"]
    assert low <= scores["auc"] <= high


def test_the_model_is_the_mean_of_the_folds_and_works_like_any_other(finished: RunFolder) -> None:
    info = load_info(finished.model)
    assert info.architecture["name"] == "ensemble" and info.name == "run"
    assert info.training["cases"] == 12 and [one["cases"] for one in info.training["folds"]] == [8, 8, 8]
    assert info.scores["cross_validation"]["auc"] == read_json(finished.path / "cross_validation.json")["auc"]
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        members = torch.stack([torch.softmax(load_network(path)(images), 1) for path in fold_models(finished)])
        torch.testing.assert_close(torch.softmax(load_network(finished.model)(images), 1), members.mean(0))
    assert torch.equal(load_state(finished.model)["members.1.head.weight"],
                       load_state(fold_models(finished)[1])["head.weight"])
    assert all(check.ok for check in check_model(finished.path))
    evaluation = RunFolder.create(finished.path.parent / "evaluation", "evaluate", {},
                                  {"dataset": finished.spec["inputs"]["dataset"], "model": str(finished.path)})
    assert medmae_run.execute(evaluation.path) == 0, evaluation.state()["reason"]
    assert len(read_json(evaluation.path / "result.json")["cases"]) == 4


def test_the_temperature_is_fitted_to_cases_that_the_models_have_not_seen(finished: RunFolder) -> None:
    info = load_info(finished.model)
    cases = read_json(finished.path / "cross_validation.json")["cases"]
    targets = [["down", "up"].index(case["label"]) for case in cases]
    logits = np.log([[case["probabilities"][name] for name in ("down", "up")] for case in cases])
    assert info.calibration["temperature"] == pytest.approx(fit_temperature(targets, logits).temperature, rel=1e-6)
    assert (info.calibration["cases"], info.calibration["on"]) == (12, "held-out cases of the folds")
    assert "12 held-out cases of the folds" in Classifier(finished.model, device="cpu").calibration_told
    assert all(not load_info(path).calibration["cases"] for path in fold_models(finished))


def test_validation_cases_are_scored_by_the_ensemble_for_the_report(finished: RunFolder) -> None:
    scores = read_json(finished.path / "validation.json")
    assert len(scores["cases"]) == 4 and load_info(finished.model).scores["validation"]["auc"] == scores["auc"]
    report = finished.report.read_text()
    assert "Cross-validation" in report and "Validation cases" in report
    assert "loss from" in report and "fold from" not in report  # its number is no curve


def test_progress_counts_the_steps_of_all_folds(finished: RunFolder) -> None:
    records = [record for record in finished.progress() if "loss" in record]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert all(record["total"] == 12 for record in records)
    assert [record["fold"] for record in records] == [1] * 4 + [2] * 4 + [3] * 4
    assert records[-1]["eta_s"] == 0 and records[4]["eta_s"] > 0
    assert (finished.state()["step"], finished.state()["total"]) == (12, 12)


def test_the_time_left_is_that_of_all_folds(tmp_path: Path) -> None:
    whole = RunFolder.create(tmp_path / "whole", "finetune", {}, {})
    (tmp_path / "fold").mkdir()
    fold = FoldRun(tmp_path / "fold", whole, number=2, count=4, steps=10)
    fold.append_progress({"step": 5, "total": 10, "eta_s": 50.0, "loss": 1.0})
    (record,) = whole.progress()
    assert (record["step"], record["total"], record["eta_s"]) == (15, 40, 50 + 2 * 10 * 10.0)


def test_a_stopped_run_goes_on_with_the_fold_it_was_at_and_computes_no_other_again(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmae.finetuning import folds
    from medmae.finetuning.task import FinetuningTask

    whole = done(pictures(tmp_path, "whole"))
    broken = pictures(tmp_path, "broken")
    after = FinetuningTask.after_step
    trained = []

    def stop_in_the_third(task: FinetuningTask, step: int, total: int) -> None:
        after(task, step, total)
        if (broken.path / "folds/2/held_out.json").exists() and step == 2:
            broken.request_stop()

    train = folds.train_one_model
    monkeypatch.setattr(folds, "train_one_model", lambda fold, *rest: trained.append(fold.number) or train(fold, *rest))
    with monkeypatch.context() as stopping:
        stopping.setattr(FinetuningTask, "after_step", stop_in_the_third)
        assert medmae_run.execute(broken.path) == 0
    assert broken.state()["state"] == "stopped" and trained == [1, 2, 3]
    assert RunFolder(broken.path / "folds/3").state()["state"] == "stopped"
    done(broken)
    assert trained == [1, 2, 3, 3]
    for name in ("cross_validation.json", "model/weights.safetensors"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.slow
def test_a_run_killed_in_a_fold_gives_the_same_bits(tmp_path: Path) -> None:
    whole, broken = done(pictures(tmp_path, "whole", steps=12)), pictures(tmp_path, "broken", steps=12)
    command = [sys.executable, "-m", "medmae.run"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as the undisturbed run had
    process = subprocess.Popen([*command, str(broken.path)], env=environment)
    while not list((broken.path / "folds/3/checkpoints").glob("step-*.safetensors")) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert subprocess.run([*command, str(broken.path)], env=environment, timeout=240).returncode == 0
    assert (broken.path / "cross_validation.json").read_bytes() == (whole.path / "cross_validation.json").read_bytes()
    assert ((broken.model / "weights.safetensors").read_bytes() == (whole.model / "weights.safetensors").read_bytes())


@pytest.mark.slow
def test_two_processes_train_the_folds_together(tmp_path: Path) -> None:
    run = pictures(tmp_path)
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "medmae.run",
         str(run.path)], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    assert len(read_json(run.path / "cross_validation.json")["cases"]) == 12
    assert load_info(run.model).architecture["arguments"]["members"] == 3


def test_volumes_are_cross_validated_on_their_own_grids_and_segmented_by_the_ensemble(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_volumes(tmp_path, {"training": 3, "validation": 1})
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    config = FinetuneConfig(**{**FOLDS, "steps": 2, "batch_size": 2, "folds": 3, "deep_supervision": 1})  # type: ignore[arg-type]
    run = done(RunFolder.create(tmp_path / "run", "finetune", to_json(config),
                                {"dataset": str(dataset), "encoder": str(encoder)}))
    scores = read_json(run.path / "cross_validation.json")
    assert scores["metric"] == "mean_dice" and {case["fold"] for case in scores["cases"]} == {1, 2, 3}
    assert set(scores["cases"][0]["dice"]) == {"dim", "bright"} and scores["cases"][0]["hd95_mm"] is not None
    out = tmp_path / "segmented"
    assert medmae_command(["segment", "--model", str(run.path), "--images", str(tmp_path / "case0.nii.gz"),
                           "--out", str(out), "--device", "cpu"]) == 0
    assert list(out.rglob("case0.nii.gz"))
    assert medmae_command(["model", "show", str(run.path)]) == 0
    assert "cross_validation" in capsys.readouterr().out
    with pytest.raises(BadInput, match="ensemble of 3 networks"):
        make_plan(FinetuneConfig(), {"dataset": str(dataset), "encoder": str(run.path)})


def test_the_command_line_asks_for_folds_and_tells_the_scores(tmp_path: Path,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_pictures(tmp_path, {"training": 8})
    encoder = tiny_encoder(tmp_path / "encoder", "vis-mae")
    arguments = ["finetune", "--dataset", str(dataset), "--encoder", str(encoder), "--out", str(tmp_path / "out"),
                 "--folds", "2", "--steps", "2", "--device", "cpu", "--set", "batch_size=2"]
    assert medmae_command(arguments) == 0
    assert "cross-validation of 8 cases: AUC" in capsys.readouterr().out
    assert medmae_command([*arguments, "--resume", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["cross_validation"]
    assert told["auc"] == read_json(tmp_path / "out" / "cross_validation.json")["auc"] and "cases" not in told


def test_with_patience_the_folds_stop_by_the_validation_cases_and_the_scores_say_so(tmp_path: Path) -> None:
    run = done(pictures(tmp_path, patience=1, validations=4, learning_rate=1e-9, ema=0.0))
    info = load_info(run.model)
    assert all(one["early_stopping"]["stopped_at"] == 2 for one in info.training["folds"])
    assert info.scores["validation"]["selected_on"] == "validation"
    assert "selected_on" not in info.scores["cross_validation"]
