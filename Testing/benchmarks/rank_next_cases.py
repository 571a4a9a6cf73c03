"""Does the order of ``medmae rank`` find the cases that a model segments badly?

    python Testing/benchmarks/rank_next_cases.py --dataset hippocampus_mr/dataset.json --out FOLDER [--seeds 0]
        [--pool 32] [--steps 240]

For each seed a model is trained on 4 drawn cases; then cases of the same list and of other subjects are predicted and
scored without their labels, mirrored not at all, as in training, and along all axes. What would help an annotator is a
score that is high where the Dice is low: the table has Spearman's correlation between score and 1 - Dice, and the mean
Dice of the quarter that is proposed first (lower is better; "random" is the order of that strategy, "oracle" the worst
quarter) against `mean_dice` of all. Beside the strategy, other ways to make one number of the voxels' entropies are
listed, by which the strategy's own was chosen. What is trained or scored already is not done again. OUT/cases.csv has
every case, OUT/summary.csv the table.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.stats import spearmanr

from medmae.active_learning.candidate import Candidate
from medmae.active_learning.config import Mirror, RankConfig
from medmae.active_learning.mirrored_model import MirroredModel
from medmae.active_learning.strategies import strategy_called
from medmae.cli.app import run as medmae
from medmae.datasets import Case, Dataset, draw_cases, load_dataset
from medmae.datasets.prepared import Prepared
from medmae.files import write_text
from medmae.inference.outputs.uncertainty import normalised_entropy
from medmae.inference.summary import table_text
from medmae.metrics import score_segmentation
from medmae.volumes import read_label

LABELLED = 4
MIRRORS: tuple[Mirror, ...] = ("none", "trained", "all")


class AllVoxels:
    """Takes the probabilities of a small image whole."""

    def begin(self, prepared: Prepared) -> None:
        """See `Taker`."""
        shape = prepared.target.shape
        self.entropy, self.foreground = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.winner = np.zeros(shape, bool)

    def take(self, row: int, lines: slice, probabilities: torch.Tensor) -> None:
        """See `Taker`."""
        self.entropy[row, lines] = normalised_entropy(probabilities)
        self.foreground[row, lines] = 1 - probabilities[0]
        self.winner[row, lines] = probabilities.argmax(0) > 0


def ways(voxels: AllVoxels) -> dict[str, float]:
    """One number for an image, made in several ways."""
    entropy, foreground, winner = voxels.entropy, voxels.foreground, voxels.winner
    near = {size: binary_dilation(winner, np.ones((2 * size + 1,) * 3, bool)) for size in (1, 3)}
    unsure = np.sort(entropy.ravel())

    def over(mask: np.ndarray) -> float:
        return float(entropy[mask].mean()) if mask.any() else 0.0

    return {"all voxels": float(entropy.mean()), "sum": float(entropy.sum()), "predicted foreground": over(winner),
            "foreground and 1 voxel": over(near[1]), "foreground and 3 voxels": over(near[3]),
            "foreground from 1 %": over(foreground >= 0.01), "foreground from 5 %": over(foreground >= 0.05),
            "foreground from 10 %": over(foreground >= 0.1), "foreground from 20 %": over(foreground >= 0.2),
            "entropy above 0.1": over(entropy > 0.1),
            "most unsure 1 %": float(unsure[-max(1, len(unsure) // 100):].mean()),
            "sum over expected foreground": float(entropy.sum() / max(1.0, foreground.sum()))}


def pool_of(dataset: Dataset, drawn: Sequence[Case], count: int, seed: int) -> list[Case]:
    """Cases of other subjects than those drawn."""
    subjects = {case.subject for case in drawn}
    others = [case for case in dataset.cases("training") if case.is_labelled and case.subject not in subjects]
    return list(draw_cases(others, min(count, len(others)), seed))


def trained(dataset: Dataset, seed: int, steps: int, out: Path) -> Path:
    """A model of `LABELLED` cases."""
    if not (out / "model").is_dir():
        code = medmae(["finetune", "--dataset", str(dataset.path), "--encoder", "none", "--method", "gl-mae",
                       "--preset", "tiny-hybrid", "--cases", str(LABELLED), "--steps", str(steps),
                       "--seed", str(seed), "--resume", "--out", str(out)])
        assert code == 0, f"finetuning ended with {code}"
    return out / "model"


def rows_of(dataset: Dataset, folder: Path, mirror: Mirror, cases: Sequence[Case], seed: int) -> list[dict[str, Any]]:
    """A row for each case: its Dice, and its scores."""
    rows, model = [], MirroredModel(folder, RankConfig(device="cpu", precision="fp32", mirror=mirror))
    for case in cases:
        begun = time.monotonic()
        voxels, candidate = AllVoxels(), Candidate(case.id, case.images)
        labels = model.segment(candidate, voxels)
        seconds = time.monotonic() - begun
        assert case.label is not None
        dice = score_segmentation(case.id, read_label(case.label).array[0], labels, dataset.labels, None).dice
        mean = float(np.mean([value for value in dice.values() if value is not None]))
        rows.append({"seed": seed, "mirror": mirror, "case": case.id, "dice": mean, "seconds": round(seconds, 2),
                     "random": strategy_called("random")(model, candidate, seed).value, **ways(voxels)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each seed, mirroring and way, how well its order follows the Dice."""
    told = []
    for seed, mirror in dict.fromkeys((int(row["seed"]), row["mirror"]) for row in rows):
        own = [row for row in rows if int(row["seed"]) == seed and row["mirror"] == mirror]
        dice = np.array([float(row["dice"]) for row in own])
        quarter = max(1, len(own) // 4)
        names = [name for name in own[0] if name not in ("seed", "mirror", "case", "dice", "seconds")]
        for name in (*names, "oracle"):
            score = 1 - dice if name == "oracle" else np.array([float(row[name]) for row in own])
            first = np.argsort(-score, kind="stable")[:quarter]
            told.append({"seed": seed, "mirror": mirror, "score": name, "cases": len(own),
                         "mean_dice": round(float(dice.mean()), 4),
                         "spearman": round(float(spearmanr(score, 1 - dice).statistic), 3),
                         "dice_of_first_quarter": round(float(dice[first].mean()), 4)})
    return told


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pool", type=int, default=32)
    parser.add_argument("--steps", type=int, default=240)
    arguments = parser.parse_args()
    dataset, file = load_dataset(arguments.dataset), arguments.out / "cases.csv"
    rows: list[dict[str, Any]] = list(csv.DictReader(file.open())) if file.is_file() else []
    for seed in arguments.seeds:
        if any(int(row["seed"]) == seed for row in rows):
            continue
        folder = trained(dataset, seed, arguments.steps, arguments.out / f"seed-{seed}")
        drawn = draw_cases([case for case in dataset.cases("training") if case.is_labelled], LABELLED, seed)
        for mirror in MIRRORS:
            rows += rows_of(dataset, folder, mirror, pool_of(dataset, drawn, arguments.pool, seed), seed)
        write_text(file, table_text(list(rows[0]), rows))
    told = summary(rows)
    write_text(arguments.out / "summary.csv", table_text(list(told[0]), told))
    print(table_text(list(told[0]), told))


if __name__ == "__main__":
    main()
