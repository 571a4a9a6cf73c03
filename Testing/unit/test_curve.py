"""Label-efficiency curves: all points, both arms, resumable, paired intervals over subjects."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tiny_training_data import write_pictures

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.curve import CurveConfig, execute, summarise
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
    assert row["pretrained"] == pytest.approx(0.85)
    assert row["difference"] == pytest.approx(0.1)
    assert row["interval"] == pytest.approx([0.1, 0.1])


def test_a_single_arm_has_no_difference() -> None:
    (row,) = summarise([result(0, "scratch", [0.5, 0.7])])
    assert row["scratch"] == pytest.approx(0.6)
    assert "difference" not in row


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
