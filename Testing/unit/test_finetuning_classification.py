"""Finetuning classifiers: losses, balance, bags of slices, several classes at once, temperature in the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training_data import write_pictures
from torch import nn

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.datasets import Corpus, CorpusWriter
from medmae.files import read_json
from medmae.finetuning.classification import ClassificationTask
from medmae.finetuning.classification_loss import ClassificationLoss
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.curve import summarise
from medmae.inference.classifier import Classifier
from medmae.metrics import auc
from medmae.models import load_info
from medmae.run_folder import RunFolder
from medmae.training.randomness import Draw
from medmae.volumes import read_image


class Levels(nn.Module):
    """Logits (mean, -mean) of what it sees, times a trainable 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = images.flatten(1).mean(1) * self.factor
        return torch.stack([level, -level], 1)


def corpus(folder: Path, targets: list, slices: int = 1) -> Corpus:
    """Images whose slice k has the level k + 1; targets as given."""
    with CorpusWriter(folder, settings={}) as writer:
        for number, target in enumerate(targets):
            image = np.broadcast_to(np.arange(1.0, slices + 1)[:, None, None], (1, slices, 8, 8)).astype(np.float32)
            writer.add(f"case{number}", image, (1.0, 1.0, 1.0), "MR", {}, label=None, target=target,
                       subject=f"s{number}")
    return Corpus(folder)


def task(folder: Path, targets: list, depth: int = 1, validation: Corpus | None = None,
         **config: object) -> ClassificationTask:
    return ClassificationTask(Levels(), FinetuneConfig(**config), corpus(folder, targets, depth),  # type: ignore[arg-type]
                              validation, (8, 8), ["a", "b"])


def test_rare_classes_weigh_more_and_small_batches_keep_it() -> None:
    targets = torch.tensor([0, 0, 0, 1])
    loss = ClassificationLoss(targets, 3)
    torch.testing.assert_close(loss.weights[:2], torch.tensor([4 / 6, 2.0]))
    logits = torch.tensor([[1.0, -1, 0]])
    plain = -torch.log_softmax(logits, 1)[0]
    for target in (0, 1):
        assert float(loss(logits, torch.tensor([target]))["loss"]) == pytest.approx(
            float(plain[target] * loss.weights[target]))
    assert ClassificationLoss(targets, 3, balanced=False).weights.tolist() == [1, 1, 1]


def test_presence_and_absence_of_a_class_weigh_the_same() -> None:
    targets = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    loss = ClassificationLoss(targets, 3)
    assert loss.weights.tolist() == [3.0, 1.0, 0.25]  # a class that none has stays alone, one that all have counts
    logits = torch.tensor([[0.3, -2.0, 1.0]]).to(torch.bfloat16)
    expected = -np.mean([3 * np.log(1 / (1 + np.exp(-float(logits[0, 0])))),
                         np.log(1 - 1 / (1 + np.exp(-float(logits[0, 1])))),
                         np.log(1 - 1 / (1 + np.exp(-float(logits[0, 2]))))])
    assert float(loss(logits, torch.tensor([[1, 0, 0]]))["loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_bag_is_that_of_its_pooled_slices() -> None:
    logits = torch.tensor([[2.0, 0], [0, 1], [-3, 0], [1, 1]])  # two cases of two slices
    targets = torch.tensor([1, 0])
    for pooling, pooled in (("mean", [[1.0, 0.5], [-1, 0.5]]), ("max", [[2.0, 1], [1, 1]])):
        expected = nn.functional.cross_entropy(torch.tensor(pooled), targets)
        found = ClassificationLoss(torch.tensor([0, 1]), 2, pooling)(logits, targets)["loss"]
        torch.testing.assert_close(found, expected)


def test_one_slice_is_drawn_for_the_mean_and_a_spread_bag_for_other_poolings(tmp_path: Path) -> None:
    draws = [Draw(item, epoch) for item in range(2) for epoch in range(3)]
    assert task(tmp_path / "a", [0, 1], 40).load_batch(draws)["images"].shape == (6, 1, 8, 8)
    batch = task(tmp_path / "b", [0, 1], 40, slice_pooling="max").load_batch(draws)
    assert batch["images"].shape == (48, 1, 8, 8) and batch["targets"].shape == (6,)
    assert task(tmp_path / "c", [0, 1], 1, slice_pooling="max").load_batch(draws)["images"].shape == (6, 1, 8, 8)
    bags = task(tmp_path / "d", [0, 1], 40, slice_pooling="top10%", slices=4)
    picked = []
    for epoch in range(20):
        images = bags.load_batch([Draw(0, epoch)])["images"]
        assert images.shape[0] == 4
        picked.append(images.flatten(1).amax(1))
    order = torch.stack(picked).mean(0)
    assert (order.diff() > 0).all()  # one slice of each quarter, from the first to the last


def test_balanced_drawing_shows_classes_equally_often_and_repeats_itself(tmp_path: Path) -> None:
    draws = [Draw(item, epoch) for epoch in range(30) for item in range(10)]
    drawing = task(tmp_path / "a", [0] * 9 + [1], class_balance="draw")
    targets = drawing.load_batch(draws)["targets"]
    assert 0.38 < float(targets.float().mean()) < 0.62
    assert torch.equal(targets[:7], drawing.load_batch(draws[:7])["targets"])
    several = task(tmp_path / "b", [[0]] * 8 + [[0, 1], []], class_balance="draw").load_batch(draws)["targets"]
    assert several.shape == (300, 2) and 0.2 < float((several.sum(1) == 0).float().mean()) < 0.45
    usual = task(tmp_path / "c", [0] * 9 + [1]).load_batch(draws)["targets"]
    assert int(usual.sum()) == 30


@pytest.mark.parametrize(("calibrate", "cases"), [(True, 6), (False, 0)])
def test_the_temperature_is_fitted_on_validation_cases_alone(tmp_path: Path, calibrate: bool, cases: int) -> None:
    held_out = corpus(tmp_path / "v", [0, 0, 1, 0, 1, 0], 3)
    tuned = task(tmp_path / "t", [0, 1], 3, held_out, calibrate=calibrate)
    tuned.finish()
    assert tuned.calibration.cases == cases
    logits = 2.0  # the mean level of slices 1, 2, 3
    chance = 1 / (1 + np.exp(-2 * logits / tuned.calibration.temperature))
    for case in tuned.last_validation["cases"]:
        assert case["probabilities"]["a"] == pytest.approx(chance, abs=1e-6)
    assert (tuned.last_validation["calibration"]["uncalibrated"] is not None) == calibrate
    assert (tuned.calibration.temperature > 1.5) == calibrate  # surer than 4 of 6 right


def write_lists(folder: Path, counts: dict[str, int]) -> Path:
    """The pictures of `write_pictures`, each with a list: ["up"], ["down"], both, or none (a picture of each kind)."""
    path = write_pictures(folder, counts)
    data = json.loads(path.read_text())
    data["labels"] = {"down": 5, "up": 9}
    for key in counts:
        for item in data[key]:
            item["label"] = ["up"] if item["label"] else ["down"]
        data[key][0]["label"] = []
    path.write_text(json.dumps(data))
    return path


def test_several_classes_are_learned_saved_classified_and_scored(tmp_path: Path) -> None:
    dataset = write_lists(tmp_path, {"training": 14, "validation": 8, "test": 6})
    config = FinetuneConfig(method="vis-mae", preset="tiny", steps=25, batch_size=6, ema=0.5, validations=1)
    run = RunFolder.create(tmp_path / "out", "finetune", to_json(config), {"dataset": str(dataset), "encoder": "none"})
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    info = load_info(run.model)
    assert info.multi_label and [label["value"] for label in info.labels] == [5, 9]
    assert info.calibration["cases"] == 8 and info.calibration["nll_after"] <= info.calibration["nll_before"]
    assert not {"cases", "roc", "calibration"} & set(info.scores["validation"])
    scores = read_json(run.path / "validation.json")
    assert scores["multi_label"] and scores["auc"] > 0.7
    found = Classifier(run.model).classify(read_image(tmp_path / "picture3.png"))
    assert set(found.labels) <= {"down", "up"} and 0.0 <= sum(found.probabilities.values()) <= 2.0
    evaluation = RunFolder.create(tmp_path / "eval", "evaluate", {}, {"dataset": str(dataset), "model": str(run.path)})
    assert medmae_run.execute(evaluation.path) == 0, evaluation.state()["reason"]
    assert len(read_json(evaluation.path / "result.json")["cases"]) == 6
    single = write_pictures(tmp_path, {"training": 2, "test": 2})
    data = json.loads(single.read_text()) | {"labels": {"down": 0, "up": 1}}
    single.write_text(json.dumps(data))
    refused = RunFolder.create(tmp_path / "no", "evaluate", {}, {"dataset": str(single), "model": str(run.path)})
    assert medmae_run.execute(refused.path) == 2
    assert "exactly one class" in refused.state()["reason"]


def test_curves_compare_arms_where_several_classes_may_apply() -> None:
    def result(arm: str, shift: float) -> dict:
        cases = [{"subject": str(n), "label": label, "probabilities": {"a": 0.2 + shift * ("a" in label) + 0.01 * n,
                                                                       "b": 0.5 + 0.01 * n}}
                 for n, label in enumerate([["a"], [], ["a", "b"], ["b"], [], ["a"]])]
        return {"arm": arm, "labels": "4", "seed": 0, "metric": "auc", "score": 0.5,
                "result": {"task": "classification", "auc": 0.5 + shift, "cases": cases}}

    (row,) = summarise([result("pretrained", 0.5), result("scratch", 0.0)])
    # a is told apart wholly with the shift, by chance without; b does not change
    of_b = auc([0, 0, 1, 1, 0, 0], [0.01 * n for n in range(6)])
    of_a = auc([1, 0, 1, 0, 0, 1], [0.01 * n for n in range(6)])
    assert of_a is not None and of_b is not None
    low, high = row["differences"][0]["interval"]
    assert low <= (1 + of_b) / 2 - (of_a + of_b) / 2 <= high
