"""Label-efficiency curves: the same finetuning on more and more labels, over seeds, with and without pretraining.

Every point is a finetuning run of its own under ``RUN/points/``, scored once on the list asked for (test by default).
A finished point is never computed again, so that a curve can be stopped and resumed at any time.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from medmae.config import from_json, to_json
from medmae.datasets.validation import validate_cases
from medmae.errors import BadInput
from medmae.files import read_json, write_json, write_text
from medmae.finetuning import run as finetuning_run
from medmae.finetuning.config import FinetuneConfig
from medmae.inference import evaluate_run
from medmae.metrics import auc, bootstrap_interval, targets_of
from medmae.models import load_info, load_state, resolve_model
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
Arm = Literal["pretrained", "scratch"]
FIELDS = ("arm", "labels", "seed", "score", "metric", "cases")


@dataclass(frozen=True)
class CurveConfig:
    """Which points: numbers of labelled `cases` (drawn by subject from each seed) or named `subsets`, seeds, arms.

    `finetune` is the configuration of every point; its seed and cases are replaced.
    """

    cases: tuple[int, ...] = ()
    subsets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    arms: tuple[Arm, ...] = ("pretrained", "scratch")
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if bool(self.cases) == bool(self.subsets):
            raise ValueError("give either cases or subsets")
        if not self.seeds or not self.arms:
            raise ValueError("at least one seed and one arm are needed")


@dataclass(frozen=True)
class Point:
    """One finetuning of the curve."""

    arm: Arm
    labels: str
    seed: int

    @property
    def name(self) -> str:
        """Folder name of the point."""
        return f"{self.arm}-{self.labels}-seed{self.seed}"


class _PointRun(RunFolder):
    """The folder of a point; a stop asked of the curve stops the point at its next step."""

    def __init__(self, path: Any, curve: RunFolder | None = None) -> None:
        super().__init__(path)
        self._curve = curve

    @property
    def stop_requested(self) -> bool:
        """Whether the curve, or this point, is asked to stop."""
        return super().stop_requested or (self._curve is not None and self._curve.stop_requested)


def execute(run: RunFolder) -> None:
    """Compute the points that are missing; writes ``results.csv`` (a row a point) and ``summary.json``."""
    spec = run.spec
    config = from_json(CurveConfig, spec["config"], "curve configuration")
    inputs = spec["inputs"]
    if "pretrained" in config.arms and inputs.get("encoder") in (None, finetuning_run.FROM_SCRATCH):
        raise BadInput("The arm 'pretrained' needs an encoder. Give --encoder, or only --arms scratch.")
    config = _with_network(config, inputs)
    points = list(_points(config))
    _check(config, inputs, points)
    results: list[dict[str, Any]] = []
    for number, point in enumerate(points, 1):
        results.append(_score(run, config, inputs, point))
        write_text(run.path / "results.csv", _csv(results))
        run.append_progress({"stage": "points", "step": number, "total": len(points), "message": point.name,
                             "score": results[-1]["score"]})
        run.write_state(step=number, total=len(points))
    write_json(run.path / "summary.json", summarise(results))


def _with_network(config: CurveConfig, inputs: dict[str, Any]) -> CurveConfig:
    """The scratch arm uses the encoder's method and preset, so that both arms are the same network."""
    if inputs.get("encoder") in (None, finetuning_run.FROM_SCRATCH):
        return config
    info = load_info(resolve_model(inputs["encoder"]))
    return replace(config, finetune=replace(config.finetune, method=info.method, preset=info.preset))


def _points(config: CurveConfig) -> Iterator[Point]:
    for labels in config.subsets or tuple(map(str, config.cases)):
        for seed in config.seeds:
            for arm in config.arms:
                yield Point(arm, labels, seed)


def _check(config: CurveConfig, inputs: dict[str, Any], points: Sequence[Point]) -> None:
    """See contradictions and bad files, also of the list to score, before hours of computing.

    Raises:
        BadInput: there are some.
    """
    plans = [finetuning_run.make_plan(_finetune_config(config, point), _inputs(inputs, config, point))
             for point in points]
    if "pretrained" in config.arms:
        load_state(inputs["encoder"])
    dataset = plans[0].dataset
    used = (case for plan in plans for case in (*plan.training, *plan.validation))
    scored = evaluate_run.labelled_cases(dataset, _split(inputs))
    validate_cases(dataset, tuple({case.id: case for case in (*used, *scored)}.values()), labels=True)


def _split(inputs: dict[str, Any]) -> str:
    return inputs.get("split") or "test"


def _finetune_config(config: CurveConfig, point: Point) -> FinetuneConfig:
    # At N labels nothing but these N is used: a temperature would see the validation cases.
    return replace(config.finetune, seed=point.seed, cases=int(point.labels) if config.cases else None, calibrate=False)


def _inputs(inputs: dict[str, Any], config: CurveConfig, point: Point) -> dict[str, Any]:
    of_point = {"dataset": inputs["dataset"], "subset": point.labels if config.subsets else None}
    if point.arm == "pretrained":
        return of_point | {"encoder": inputs["encoder"]}
    like = inputs.get("encoder")  # the same network and preprocessing, also where the encoder has no preset's sizes
    return of_point | {"encoder": finetuning_run.FROM_SCRATCH,
                       "like": None if like == finetuning_run.FROM_SCRATCH else like}


def _score(curve: RunFolder, config: CurveConfig, inputs: dict[str, Any], point: Point) -> dict[str, Any]:
    folder = curve.path / "points" / point.name
    result_file = folder / "evaluation" / "result.json"
    if not result_file.is_file():
        log.info("point %s", point.name)
        if not (folder / "spec.json").is_file():
            RunFolder.create(folder, "finetune", to_json(_finetune_config(config, point)),
                             _inputs(inputs, config, point))
        run = _PointRun(folder, curve)
        if not (run.model / "model.json").is_file():
            finetuning_run.execute(run)
            run.write_state(state="done")
        if not (folder / "evaluation" / "spec.json").is_file():
            RunFolder.create(folder / "evaluation", "evaluate", {"device": config.finetune.device},
                             {"dataset": inputs["dataset"], "split": _split(inputs),
                              "model": str(run.model)})
        evaluate_run.execute(_PointRun(folder / "evaluation", curve))
    result = read_json(result_file)
    metric = "mean_dice" if result["task"] == "segmentation" else "auc"
    return {"arm": point.arm, "labels": point.labels, "seed": point.seed, "score": result[metric], "metric": metric,
            "cases": len(result["cases"]), "result": result}


def _csv(results: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    return text.getvalue()


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per number of labels: the mean score of each arm over seeds, and where both arms exist their difference.

    The difference is paired by seed, its 95 % interval a bootstrap over the subjects of the scored list; None where
    there are fewer than two.
    """
    summary = []
    for labels in dict.fromkeys(result["labels"] for result in results):
        of_arm: dict[str, dict[int, dict[str, Any]]] = {}
        for result in results:
            if result["labels"] == labels:
                of_arm.setdefault(result["arm"], {})[result["seed"]] = result["result"]
        metric = results[0]["metric"]
        row: dict[str, Any] = {"labels": labels, "metric": metric}
        row |= {arm: _mean([run[metric] for run in runs.values()]) for arm, runs in of_arm.items()}
        if {"pretrained", "scratch"} <= set(of_arm):
            row |= _difference(of_arm["pretrained"], of_arm["scratch"], metric)
        summary.append(row)
    return summary


def _difference(one: dict[int, dict[str, Any]], other: dict[int, dict[str, Any]], metric: str) -> dict[str, Any]:
    seeds = sorted(set(one) & set(other))
    difference = _mean([one[seed][metric] - other[seed][metric] for seed in seeds
                        if one[seed][metric] is not None and other[seed][metric] is not None])
    if difference is None:
        return {"difference": None, "interval": None}
    subjects = [case["subject"] for case in one[seeds[0]]["cases"]]
    statistics = [_statistic([arm[seed] for seed in seeds]) for arm in (one, other)]
    interval = bootstrap_interval(subjects, statistics[0], paired=statistics[1])
    return {"difference": difference, "interval": list(interval) if interval else None}


def _statistic(results: list[dict[str, Any]]) -> Callable[[np.ndarray], float | None]:
    """The score of drawn cases, averaged over the runs of an arm."""

    def score(drawn: np.ndarray) -> float | None:
        return _mean([one(drawn) for one in of_run])

    of_run = [_segmentation_statistic(result) if result["task"] == "segmentation" else _classification_statistic(result)
              for result in results]
    return score


def _segmentation_statistic(result: dict[str, Any]) -> Callable[[np.ndarray], float | None]:
    dice = np.array([[np.nan if value is None else value for value in case["dice"].values()]
                     for case in result["cases"]], float)

    def mean_dice(drawn: np.ndarray) -> float | None:
        per_label = [float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else None
                     for column in dice[drawn].T]
        return _mean(per_label)

    return mean_dice


def _classification_statistic(result: dict[str, Any]) -> Callable[[np.ndarray], float | None]:
    classes = list(result["cases"][0]["probabilities"])
    targets = targets_of([[classes.index(name) for name in case["label"]] if isinstance(case["label"], list)
                          else classes.index(case["label"]) for case in result["cases"]], len(classes))
    probabilities = np.array([list(case["probabilities"].values()) for case in result["cases"]])
    return lambda drawn: auc(targets[drawn], probabilities[drawn])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
