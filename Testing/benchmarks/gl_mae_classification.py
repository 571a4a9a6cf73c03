"""3-D classification with GL-MAE: ways to pool with both heads, chosen by cross-validation, tested once.

    python Testing/benchmarks/gl_mae_classification.py --data FOLDER --out FOLDER [--folds 4] [--set key=value ...]

FOLDER of --data holds hippocampus_mr. An encoder is pretrained on the training images; each combination of pooling and
head is finetuned with folds of the training cases, which are also what they are compared by; the validation list is
shown beside. "weighted" with "linear" is the default of the `tiny` presets. The best combination alone is scored on
the test list. OUT/classification.csv has a row a combination. Killed or stopped, the same command goes on where it was.
--set reaches every finetuning.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path
from typing import Any

from medmae.cli.app import DONE, run
from medmae.files import atomic_path, read_json
from medmae.models import load_info

COMBINATIONS = tuple(itertools.product(("weighted", "mean", "cls"), ("linear", "mlp")))
COLUMNS = ("pool", "head", "folds", "steps", "cross_validation_auc", "cross_validation_low", "cross_validation_high",
           "validation_auc", "test_auc", "test_low", "test_high")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds hippocampus_mr")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--pretraining-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, help="of each finetuning; default: the preset's")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--set", dest="overrides", nargs="*", default=[], metavar="key=value")
    return parser.parse_args()


def command(*arguments: object) -> None:
    """Run one command of medmae, which continues what is there already."""
    if run([str(argument) for argument in arguments]) != DONE:
        raise SystemExit(1)


def finetuned(options: argparse.Namespace, dataset: Path, pool: str, head: str) -> dict[str, Any]:
    """Finetune one combination, and its row of the table."""
    out = options.out / f"{pool}-{head}"
    overrides = [f"pool={pool}", f"head={head}", *options.overrides]
    command("finetune", "--dataset", dataset, "--encoder", options.out / "encoder", "--folds", options.folds,
            "--precision", options.precision, *(["--steps", options.steps] if options.steps else []),
            *itertools.chain(*(("--set", text) for text in overrides)), "--out", out, "--resume")
    scores, validation = read_json(out / "cross_validation.json"), read_json(out / "validation.json")
    low, high = scores["auc_interval"] or (None, None)
    return {"pool": pool, "head": head, "folds": options.folds, "steps": load_info(out).training["steps"],
            "cross_validation_auc": scores["auc"], "cross_validation_low": low, "cross_validation_high": high,
            "validation_auc": validation["auc"]}


def tested(options: argparse.Namespace, dataset: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row with the scores of the test list; they are computed once."""
    model, out = options.out / f"{row['pool']}-{row['head']}", options.out / "test"
    if not (out / "result.json").is_file():
        command("evaluate", "--dataset", dataset, "--model", model, "--split", "test", "--out", out)
    scores = read_json(out / "result.json")
    low, high = scores["auc_interval"] or (None, None)
    return row | {"test_auc": scores["auc"], "test_low": low, "test_high": high}


def main() -> None:
    """Pretrain, finetune, choose, test, and write the table."""
    options = parse_arguments()
    dataset = options.data / "hippocampus_mr" / "dataset_classification.json"
    command("pretrain", "--dataset", dataset, "--method", "gl-mae", "--preset", options.preset, "--steps",
            options.pretraining_steps, "--out", options.out / "encoder", "--resume")
    rows = [finetuned(options, dataset, *combination) for combination in COMBINATIONS]
    best = max(range(len(rows)), key=lambda number: rows[number]["cross_validation_auc"])
    rows[best] = tested(options, dataset, rows[best])
    with atomic_path(options.out / "classification.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print((options.out / "classification.csv").read_text())


if __name__ == "__main__":
    main()
