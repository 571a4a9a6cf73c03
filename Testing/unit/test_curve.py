"""Label-efficiency curves: all points, both arms, resumable, paired intervals over subjects."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
from tiny_training_data import write_pictures

from medmae import run as medmae_run
from medmae.config import from_json, to_json
from medmae.errors import BadInput, PartialFailure
from medmae.files import read_json
from medmae.finetuning import run as finetuning_run
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.curve import CurveConfig, execute
from medmae.finetuning.curve_points import train_seconds
from medmae.finetuning.curve_summary import cases_csv, summarise
from medmae.models import load_info
from medmae.run_folder import RunFolder


def result(seed: int, arm: str, dice: list[float | None], labels: str = "4") -> dict:
    known = [value for value in dice if value is not None]
    cases = [{"subject": f"s{number}", "dice": {"organ": value}} for number, value in enumerate(dice)]
    return {"arm": arm, "labels": labels, "seed": seed, "metric": "mean_dice", "score": sum(known) / len(known),
            "result": {"task": "segmentation", "mean_dice": sum(known) / len(known), "cases": cases}}


def test_the_difference_is_paired_and_its_interval_is_over_subjects() -> None:
    (row,) = summarise([result(0, "pretrained", [0.8, 0.9, 0.7]), result(0, "scratch", [0.7, 0.8, 0.6]),
                        result(1, "pretrained", [0.9, 0.9, None]), result(1, "scratch", [0.8, 0.8, None])])
    assert row["arms"]["pretrained"]["mean"] == pytest.approx(0.85)
    assert row["arms"]["pretrained"]["sd"] == pytest.approx(np.std([0.8, 0.9], ddof=1))
    (difference,) = row["differences"]
    assert (difference["arm"], difference["against"]) == ("pretrained", "scratch")
    assert difference["by_seed"] == pytest.approx({"0": 0.1, "1": 0.1})
    assert difference["difference"] == pytest.approx(0.1)
    assert difference["interval"] == pytest.approx([0.1, 0.1])


def test_every_pair_of_arms_is_compared_on_the_seeds_that_both_have() -> None:
    (row,) = summarise([result(0, "pretrained", [0.9, 0.7]), result(0, "scratch", [0.8, 0.6]),
                        result(0, "unet", [0.5, 0.5]), result(1, "unet", [0.1, 0.1])])
    assert [(one["arm"], one["against"]) for one in row["differences"]] == [
        ("pretrained", "scratch"), ("pretrained", "unet"), ("scratch", "unet")]
    assert row["differences"][1]["difference"] == pytest.approx(0.3)
    assert row["arms"]["unet"]["mean"] == pytest.approx(0.3) and row["arms"]["scratch"]["sd"] is None


def test_arms_that_were_scored_on_different_cases_are_not_compared() -> None:
    with pytest.raises(BadInput, match="different cases"):
        summarise([result(0, "pretrained", [0.9, 0.7]), result(0, "scratch", [0.9, 0.7, 0.8])])
    with pytest.raises(BadInput, match="scratch with seed 0 and scratch with seed 1 were scored on different cases"):
        summarise([result(0, "scratch", [0.9, 0.7, 0.8]), result(1, "scratch", [0.9, 0.7])])


def test_a_single_arm_has_no_difference() -> None:
    (row,) = summarise([result(0, "scratch", [0.5, 0.7])])
    assert row["arms"]["scratch"]["mean"] == pytest.approx(0.6)
    assert row["differences"] == []


def test_the_table_of_cases_has_a_line_for_each_case_and_its_figures() -> None:
    classified = {"arm": "scratch", "labels": "4", "seed": 1, "result": {"cases": [
        {"image": "a.png", "subject": "s", "label": "up", "predicted": "down",
         "probabilities": {"down": 0.75, "up": 0.25}}]}}
    assert list(csv.DictReader(cases_csv([classified]).splitlines())) == [
        {"arm": "scratch", "labels": "4", "seed": "1", "image": "a.png", "subject": "s", "label": "up",
         "predicted": "down", "p_down": "0.75", "p_up": "0.25"}]
    lines = list(csv.DictReader(cases_csv([result(0, "unet", [0.5, None])]).splitlines()))
    assert [line["dice_organ"] for line in lines] == ["0.5", ""]


def test_training_time_counts_every_step_once_however_often_it_was_resumed(tmp_path: Path) -> None:
    steps = [(1, 3.0), (2, 4.0), (3, 6.0), (2, 0.5), (3, 2.0), (4, 2.5)]  # killed after step 3, checkpoint of step 1
    lines = [json.dumps({"stage": "corpus", "step": 9, "total": 9})]
    lines += [json.dumps({"step": step, "loss": 1.0, "seconds": seconds}) for step, seconds in steps]
    (tmp_path / "progress.jsonl").write_text("\n".join([*lines, '{"step": 5, "lo']))
    assert train_seconds(tmp_path) == pytest.approx(3.0 + 0.5 + 1.5 + 0.5)


def test_a_curve_computes_every_point_once_and_goes_on_where_it_stopped(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_pictures(tmp_path, {"training": 6, "test": 4})
    pretraining = RunFolder.create(tmp_path / "encoder", "pretrain", {
        "method": "vis-mae", "preset": "tiny", "steps": 2, "batch_size": 2}, {"dataset": str(dataset)})
    assert medmae_run.execute(pretraining.path) == 0
    config = CurveConfig(cases=(2, 4), seeds=(0,), finetune=FinetuneConfig(steps=2, batch_size=2, validations=0))
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config),
                           {"dataset": str(dataset), "encoder": str(pretraining.path), "split": "test"})
    execute(run)
    rows = list(csv.DictReader((run.path / "results.csv").open()))
    assert [(row["arm"], row["labels"], row["seed"]) for row in rows] == [
        ("pretrained", "2", "0"), ("scratch", "2", "0"), ("pretrained", "4", "0"), ("scratch", "4", "0")]
    assert all(0 <= float(row["score"]) <= 1 for row in rows)
    assert [row["labels"] for row in read_json(run.path / "summary.json")] == ["2", "4"]
    one, other = (load_info(run.path / "points" / name) for name in ("pretrained-2-seed0", "scratch-2-seed0"))
    assert (one.architecture, one.intensity, one.input_size) == (other.architecture, other.intensity, other.input_size)
    assert (one.training["encoder"], other.training["encoder"]) == ("encoder", "none")

    monkeypatch.setattr("medmae.finetuning.run.execute", lambda *_: pytest.fail("a finished point was computed again"))
    before = (run.path / "results.csv").read_text()
    execute(run)
    assert (run.path / "results.csv").read_text() == before


def write_masked_pictures(folder: Path, counts: dict[str, int]) -> Path:
    """A segmentation data set of 56 x 40 pictures, each with a bright square and its mask."""
    lists: dict[str, list[dict[str, str]]] = {key: [] for key in counts}
    generator = np.random.default_rng(0)
    for number, key in enumerate(key for key, count in counts.items() for _ in range(count)):
        picture, mask = generator.normal(60, 10, (56, 40)), np.zeros((56, 40), np.uint8)
        row, column = generator.integers(4, 20, 2)
        mask[row:row + 16, column:column + 16] = 1
        for name, array in ((f"p{number}.png", picture + 100 * mask), (f"m{number}.png", mask)):
            sitk.WriteImage(sitk.GetImageFromArray(array.clip(0, 255).astype(np.uint8)), str(folder / name))
        lists[key].append({"image": f"p{number}.png", "label": f"m{number}.png", "subject": f"s{number}"})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "square": 1}, "modality": {"0": "US"}, **lists}))
    return path


SHORT = FinetuneConfig(method="vis-mae", steps=2, batch_size=2, input_size=(56, 56))


def test_the_u_net_has_the_same_cases_and_grid_and_a_shared_corpus_changes_nothing(tmp_path: Path) -> None:
    dataset = write_masked_pictures(tmp_path, {"training": 5, "validation": 1, "test": 3})
    config = CurveConfig(cases=(2, "all"), seeds=(1,), arms=("scratch", "unet"), finetune=SHORT)
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    assert medmae_run.execute(run.path) == 0
    assert len(list((run.path / "corpora").iterdir())) == 1
    rows = list(csv.DictReader((run.path / "results.csv").open()))
    assert [(row["arm"], row["labels"], row["training_cases"]) for row in rows] == [
        ("scratch", "2", "2"), ("unet", "2", "2"), ("scratch", "all", "5"), ("unet", "all", "5")]
    assert all(float(row["train_seconds"]) > 0 for row in rows)
    assert "plain U-Net" in run.report.read_text()
    for arm, network in (("scratch", "method"), ("unet", "unet")):
        settings = to_json(SHORT) | {"cases": 2, "seed": 1, "network": network}
        alone = RunFolder.create(tmp_path / arm, "finetune", settings, {"dataset": str(dataset), "encoder": "none"})
        finetuning_run.execute(alone)
        point = run.path / "points" / f"{arm}-2-seed1"
        assert load_info(point).weights_sha256 == load_info(alone.path).weights_sha256
        assert load_info(point).input_size == [56, 56] and not list((point / "checkpoints").glob("*"))
    with pytest.raises(BadInput, match="no encoder to start from"):
        finetuning_run.make_plan(FinetuneConfig(), {"dataset": str(dataset), "encoder": str(tmp_path / "unet")})


def test_points_in_several_processes_are_the_same_and_one_that_fails_leaves_the_others(tmp_path: Path) -> None:
    dataset = write_masked_pictures(tmp_path, {"training": 4, "test": 3})
    results = {}
    for jobs in (1, 2):
        config = CurveConfig(cases=(2,), seeds=(0, 1), arms=("unet",), jobs=jobs, finetune=SHORT)
        run = RunFolder.create(tmp_path / f"curve{jobs}", "curve", to_json(config), {"dataset": str(dataset)})
        execute(run)
        points = [RunFolder(run.path / "points" / f"unet-2-seed{seed}") for seed in (0, 1)]
        results[jobs] = [record["loss"] for point in points for record in point.progress() if "loss" in record]
    assert results[1] == pytest.approx(results[2], rel=1e-4) and len(results[1]) == 4

    (before,) = read_json(run.path / "summary.json")
    for seed in (0, 1):
        point = run.path / "points" / f"unet-2-seed{seed}"
        shutil.rmtree(point / "model")
        (point / "evaluation" / "result.json").unlink()
    (run.path / "points" / "unet-2-seed0" / "preprocessing.json").write_text("{")
    with pytest.raises(PartialFailure, match=r"1 of 2 points.*\n.*unet-2-seed0.*not valid JSON"):
        execute(run)
    (row,) = csv.DictReader((run.path / "results.csv").open())
    assert row["seed"] == "1"
    (run.path / "points" / "unet-2-seed0" / "preprocessing.json").unlink()
    execute(run)
    (after,) = read_json(run.path / "summary.json")
    assert after["arms"]["unet"]["scores"] == pytest.approx(before["arms"]["unet"]["scores"], abs=0.01)


@pytest.mark.parametrize(("change", "message"), [
    ({"cases": ["all", 4, 4]}, "4 stands twice in cases"), ({"seeds": [1, 1]}, "1 stands twice in seeds"),
    ({"cases": ["some"]}, "some"), ({"cases": [0]}, "at least 1"),
    ({"jobs": 0}, "jobs"), ({"finetune": {"network": "unet"}}, "arm unet")])
def test_a_curve_that_makes_no_sense_is_refused(change: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_json(CurveConfig, {"cases": [4], **change}, "curve configuration")


@pytest.mark.parametrize(("cases", "arms", "message"), [
    ((9,), ("scratch",), "9 training cases were asked for"), ((2,), ("unet",), "classification dataset")])
def test_what_the_dataset_cannot_give_shows_before_the_first_point(tmp_path: Path, cases: tuple, arms: tuple,
                                                                   message: str) -> None:
    dataset = write_pictures(tmp_path, {"training": 4, "test": 2})
    config = CurveConfig(cases=cases, arms=arms, finetune=FinetuneConfig(steps=1))
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    with pytest.raises(BadInput, match=message):
        execute(run)
    assert not (run.path / "points").exists()


def test_the_pretrained_arm_needs_an_encoder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(CurveConfig(cases=(2,))), {"dataset": "d.json"})
    with pytest.raises(BadInput, match="--encoder"):
        execute(run)


def test_either_cases_or_subsets_are_needed() -> None:
    with pytest.raises(ValueError, match="either"):
        CurveConfig()
    with pytest.raises(ValueError, match="either"):
        CurveConfig(cases=(1,), subsets=("n4",))


def test_bad_files_of_the_list_to_score_show_before_the_first_point(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4, "test": 2})
    (tmp_path / "picture5.png").write_bytes(b"")
    config = CurveConfig(cases=(2,), seeds=(0,), arms=("scratch",), finetune=FinetuneConfig(steps=1))
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    with pytest.raises(BadInput, match=r"picture5.png is empty"):
        execute(run)
    assert not (run.path / "points").exists()


def test_scores_of_cases_that_are_trained_on_are_refused(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4, "test": 2})
    config = CurveConfig(cases=(2,), seeds=(0,), arms=("scratch",), finetune=FinetuneConfig(steps=1))
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset), "split": "training"})
    with pytest.raises(BadInput, match="'training' has 2 cases of subjects that are trained on"):
        execute(run)


def test_a_test_list_of_another_kind_shows_before_the_first_point(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4, "test": 2})
    data = json.loads(dataset.read_text())
    data["test"][0]["label"] = []
    dataset.write_text(json.dumps(data))
    config = CurveConfig(cases=(2,), seeds=(0,), arms=("scratch",), finetune=FinetuneConfig(steps=1))
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    with pytest.raises(BadInput, match="give every case a list"):
        execute(run)
    assert not (run.path / "points").exists()


def test_a_curve_that_was_moved_goes_on_with_its_own_files_and_the_device_asked_for(tmp_path: Path) -> None:
    dataset = write_masked_pictures(tmp_path, {"training": 3, "test": 2})
    config = CurveConfig(cases=(2,), seeds=(0, 1), arms=("unet",), finetune=SHORT)
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    execute(run)
    for name in ("unet-2-seed0", "unet-2-seed1"):
        (run.path / "points" / name / "evaluation" / "result.json").unlink()
    shutil.rmtree(run.path / "points" / "unet-2-seed1" / "model")
    moved = RunFolder((tmp_path / "curve").rename(tmp_path / "moved"))
    asked = to_json(replace(config, finetune=replace(SHORT, device="cpu")))
    moved.spec_file.write_text(json.dumps(moved.spec | {"config": asked}))
    execute(moved)
    assert len(list(csv.DictReader((moved.path / "results.csv").open()))) == 2
    for folder in (moved.path / "points").iterdir():
        for file in (folder / "spec.json", folder / "evaluation" / "spec.json"):
            assert read_json(file)["config"]["device"] == "cpu" and str(tmp_path / "curve") not in file.read_text()


def test_subsets_of_any_name_have_folders_side_by_side(tmp_path: Path) -> None:
    dataset = write_masked_pictures(tmp_path, {"training": 3, "test": 2})
    data = json.loads(dataset.read_text())
    names = ("a/b", "..", "n 4")
    data["subsets"] = {name: [item["image"] for item in data["training"][:2]] for name in names}
    dataset.write_text(json.dumps(data))
    config = CurveConfig(subsets=names, seeds=(0,), arms=("unet",), jobs=2, finetune=SHORT)
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config), {"dataset": str(dataset)})
    execute(run)
    assert sorted(folder.name for folder in (run.path / "points").iterdir()) == [
        "unet-..-seed0", "unet-a%2Fb-seed0", "unet-n 4-seed0"]
    assert [row["labels"] for row in read_json(run.path / "summary.json")] == list(names)


def test_several_encoders_are_arms_of_their_own_with_their_own_settings(tmp_path: Path) -> None:
    dataset = write_masked_pictures(tmp_path, {"training": 4, "test": 3})
    encoders = {}
    for seed, name in enumerate(("first", "second")):
        pretraining = RunFolder.create(tmp_path / name, "pretrain", {
            "method": "vis-mae", "preset": "tiny", "steps": 1, "batch_size": 2, "seed": seed},
            {"dataset": str(dataset)})
        assert medmae_run.execute(pretraining.path) == 0
        encoders[name] = str(pretraining.path)
    config = CurveConfig(cases=(2,), seeds=(0,), finetune=replace(SHORT, method=None),
                         of_arms={"second": ("steps=1", "flip_axes=[0]")})
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(config),
                           {"dataset": str(dataset), "encoders": encoders})
    execute(run)
    (row,) = read_json(run.path / "summary.json")
    assert list(row["arms"]) == ["first", "second", "scratch"]
    infos = {arm: load_info(run.path / "points" / f"{arm}-2-seed0") for arm in row["arms"]}
    assert [infos[arm].training["encoder"] for arm in row["arms"]] == ["first", "second", "none"]
    assert [infos[arm].training["steps"] for arm in row["arms"]] == [2, 1, 2]
    config_of_second = read_json(run.path / "points" / "second-2-seed0" / "config.json")
    assert config_of_second["augmentation"]["flip_axes"] == [0]


@pytest.mark.parametrize(("config", "inputs", "message"), [
    ({"arms": ["other"]}, {}, "no arm 'other'"),
    ({"of_arms": {"unet": ["steps=1"]}}, {}, "settings for the arm 'unet'"),
    ({}, {"encoders": {"scratch": "x"}}, "cannot be the name of an encoder"),
    ({"cases": [], "subsets": ["x", "n4-x"]}, {"encoders": {"a": "x", "A-n4": "x"}}, "would lie in the same folder"),
    ({"arms": ["pretrained"]}, {"encoder": "none", "encoders": {"mae": "x"}}, "'pretrained' needs an encoder"),
])
def test_arms_that_make_no_sense_are_refused(tmp_path: Path, config: dict, inputs: dict, message: str) -> None:
    run = RunFolder.create(tmp_path / "curve", "curve", to_json(CurveConfig(cases=(2,))) | config,
                           {"dataset": "none.json", "encoder": "x"} | inputs)
    with pytest.raises(BadInput, match=message):
        execute(run)


@pytest.mark.parametrize("setting", ["network=unet", "seed=1", "stepz=3"])
def test_settings_of_an_arm_are_those_of_finetuning_but_for_what_makes_it_a_point(setting: str) -> None:
    with pytest.raises((ValueError, BadInput)):
        CurveConfig(cases=(2,), of_arms={"scratch": (setting,)})
