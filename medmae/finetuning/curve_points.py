"""One point of a label-efficiency curve: a finetuning run and its scores, in a folder of its own."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medmae.errors import Stopped
from medmae.files import read_json
from medmae.finetuning import run as finetuning_run
from medmae.inference import evaluate_run
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
PRETRAINED, SCRATCH = "pretrained", "scratch"
ALL = "all"


@dataclass(frozen=True)
class Point:
    """One finetuning of a curve: `arm` is an encoder's name, "scratch" or a baseline; `labels` is a number, "all" or
    the name of a subset.
    """

    arm: str
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """Folder name of the point; what a subset's name may have but a folder's not is written as %XX."""
        return f"{self.arm}-{quote(self.labels, safe=' ')}-seed{self.seed}"

    def folder(self, curve: Path) -> Path:
        """Where the point lies in the folder of its curve."""
        return curve / "points" / self.name


class PointRun(RunFolder):
    """A run of a point; a stop asked of the curve stops it at its next step."""

    def __init__(self, path: Path, curve: RunFolder) -> None:
        super().__init__(path)
        self._curve = curve

    @property
    def stop_requested(self) -> bool:
        """Whether the curve is asked to stop."""
        return self._curve.stop_requested


def compute_point(curve: RunFolder, folder: Path) -> None:
    """Train and score the point whose two specifications lie in `folder`, or what is missing of it.

    Its checkpoints are removed at the end: nothing would ever continue from them.

    Raises:
        Stopped: the curve is asked to stop; a checkpoint was written first.
        BadInput, PartialFailure: as finetuning and scoring raise them.
    """
    run = PointRun(folder, curve)
    try:
        if not (run.model / "model.json").is_file():
            log.info("point %s", folder.name)
            run.write_state(state="running", reason=None, remedy=None)
            finetuning_run.execute(run)
        evaluate_run.execute(PointRun(folder / "evaluation", curve))
    except Stopped as stopped:
        run.write_state(state="stopped", reason=str(stopped), remedy="Continue the curve with --resume.")
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        run.write_state(state="failed", reason=reason, remedy="Continue the curve with --resume.")
        raise
    run.write_state(state="done")
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def result_of(folder: Path) -> dict[str, Any] | None:
    """The scores of the point in `folder`; None where it is not finished or some cases could not be scored."""
    file = folder / "evaluation" / "result.json"
    result = read_json(file, "scores of the point") if file.is_file() else None
    return None if result is None or result.get("failed") else result


def row_of(point: Point, folder: Path, training_cases: int) -> dict[str, Any] | None:
    """A finished point as it stands in the results, its scores under "result"; None where it is not finished."""
    result = result_of(folder)
    if result is None:
        return None
    metric = "mean_dice" if result["task"] == "segmentation" else "auc"
    return {"arm": point.arm, "labels": point.labels, "training_cases": training_cases, "seed": point.seed,
            "score": result[metric], "metric": metric, "cases": len(result["cases"]),
            "train_seconds": train_seconds(folder), "result": result}


def train_seconds(folder: Path) -> float | None:
    """How long the steps of the point's training took, each counted once however often it was resumed."""
    file = RunFolder(folder).progress_file
    if not file.is_file():
        return None
    took: dict[int, float] = {}
    before = 0.0
    for record in _records(file.read_text(encoding="utf-8", errors="replace").splitlines()):
        if "loss" not in record or "seconds" not in record:
            continue
        seconds = float(record["seconds"])
        # Every process counts its seconds from zero: where they fall, a resumed one begins.
        took[int(record["step"])] = seconds - before if seconds >= before else seconds
        before = seconds
    return round(sum(took.values()), 1) if took else None


def _records(lines: Sequence[str]) -> list[dict[str, Any]]:
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # the half-written line of a killed process
            continue
    return records
