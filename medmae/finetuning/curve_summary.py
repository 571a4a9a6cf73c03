"""What the points of a label-efficiency curve say together: tables, means over seeds, paired differences."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmae.errors import BadInput
from medmae.metrics import auc, bootstrap_interval, targets_of
from medmae.metrics.bootstrap import Statistic, column_means

FIELDS = ("arm", "labels", "training_cases", "seed", "score", "metric", "cases", "train_seconds")
Rows = Sequence[Mapping[str, Any]]


def results_csv(rows: Rows) -> str:
    """A line a point."""
    return _csv(FIELDS, [{name: row.get(name) for name in FIELDS} for row in rows])


def cases_csv(rows: Rows) -> str:
    """A line for each scored case of each point: Dice and HD95 of every label, or class and probabilities."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        of_point = {name: row[name] for name in ("arm", "labels", "seed")}
        lines += [of_point | _case_columns(case) for case in row["result"]["cases"]]
    return _csv(list(dict.fromkeys(name for line in lines for name in line)), lines)


def _case_columns(case: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {"image": case.get("image"), "subject": case["subject"]}
    if "probabilities" in case:
        for name in ("label", "predicted"):
            columns[name] = "+".join(case[name]) if isinstance(case[name], list) else case[name]
        return columns | {f"p_{name}": value for name, value in case["probabilities"].items()}
    columns |= {f"dice_{name}": value for name, value in case["dice"].items()}
    return columns | {f"hd95_mm_{name}": value for name, value in case.get("hd95_mm", {}).items()}


def _csv(fields: Sequence[str], rows: Rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Per number of labels: each arm over its seeds, and the difference of every pair of arms, earlier minus later.

    "arms": arm to {"mean", "sd" (of the seeds; None for one), "scores" (seed to score), "interval", "train_seconds"
    (mean)}. "differences": [{"arm", "against", "difference", "interval", "by_seed"}], paired by seed and case.
    Intervals are 95 % bootstraps over the subjects of the scored list, of the mean over the seeds; None with fewer than
    two subjects.

    Raises:
        BadInput: two points were scored on different cases.
    """
    summary = []
    for labels in dict.fromkeys(row["labels"] for row in rows):
        arms: dict[str, dict[int, Mapping[str, Any]]] = {}
        for row in rows:
            if row["labels"] == labels:
                arms.setdefault(row["arm"], {})[row["seed"]] = row
        _refuse_different_cases([row for runs in arms.values() for row in runs.values()])
        names = list(arms)
        first = next(iter(arms[names[0]].values()))
        summary.append({
            "labels": labels, "training_cases": first.get("training_cases"), "metric": first["metric"],
            "cases": len(first["result"]["cases"]),
            "subjects": len({case["subject"] for case in first["result"]["cases"]}),
            "arms": {name: _of_arm(runs) for name, runs in arms.items()},
            "differences": [{"arm": one, "against": other, **_difference(arms[one], arms[other])}
                            for number, one in enumerate(names) for other in names[number + 1:]]})
    return summary


def _refuse_different_cases(rows: Rows) -> None:
    for row in rows[1:]:
        if _names(row["result"]) != _names(rows[0]["result"]):
            one, other = (f"{of['arm']} with seed {of['seed']}" for of in (rows[0], row))
            raise BadInput(f"With {row['labels']} labels, {one} and {other} were scored on different cases, so that "
                           "they cannot be compared. Was the dataset changed? Start a new curve then.")


def _of_arm(runs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    scores = {str(seed): row["score"] for seed, row in sorted(runs.items())}
    known = [score for score in scores.values() if score is not None]
    found = [row["result"] for row in runs.values()]
    interval = bootstrap_interval(_subjects(found[0]), _statistic(found)) if known else None
    return {"mean": _mean(known), "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None, "scores": scores,
            "interval": list(interval) if interval else None,
            "train_seconds": _mean([row.get("train_seconds") for row in runs.values()])}


def _difference(one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    seeds = [seed for seed in sorted(set(one) & set(other))
             if one[seed]["score"] is not None and other[seed]["score"] is not None]
    if not seeds:
        return {"difference": None, "interval": None, "by_seed": {}}
    pairs = [(one[seed]["result"], other[seed]["result"]) for seed in seeds]
    interval = bootstrap_interval(_subjects(pairs[0][0]), _statistic([pair[0] for pair in pairs]),
                                  paired=_statistic([pair[1] for pair in pairs]))
    by_seed = {str(seed): one[seed]["score"] - other[seed]["score"] for seed in seeds}
    return {"difference": _mean(list(by_seed.values())), "interval": list(interval) if interval else None,
            "by_seed": by_seed}


def _names(result: Mapping[str, Any]) -> list[tuple[Any, str]]:
    return [(case.get("image"), case["subject"]) for case in result["cases"]]


def _subjects(result: Mapping[str, Any]) -> list[str]:
    return [case["subject"] for case in result["cases"]]


def _statistic(results: Rows) -> Statistic:
    """The score of drawn cases, averaged over the runs of an arm."""

    def score(drawn: np.ndarray) -> float | None:
        return _mean([one(drawn) for one in of_run])

    of_run = [_segmentation_statistic(result) if result["task"] == "segmentation" else _classification_statistic(result)
              for result in results]
    return score


def _segmentation_statistic(result: Mapping[str, Any]) -> Statistic:
    return column_means([[np.nan if value is None else value for value in case["dice"].values()]
                         for case in result["cases"]])


def _classification_statistic(result: Mapping[str, Any]) -> Statistic:
    classes = list(result["cases"][0]["probabilities"])
    targets = targets_of([[classes.index(name) for name in case["label"]] if isinstance(case["label"], list)
                          else classes.index(case["label"]) for case in result["cases"]], len(classes))
    probabilities = np.array([list(case["probabilities"].values()) for case in result["cases"]])
    return lambda drawn: auc(targets[drawn], probabilities[drawn])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
