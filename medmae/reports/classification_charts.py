"""Charts of classifications: confusion matrix, two-by-two tables, ROC beside reliability. Each returns a sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medmae.reports.drawing import BLUE, CYCLE, INK, LINE, SOFT, Sheet, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CURVES = len(CYCLE)
MOST_MATRIX_CLASSES = 14
MOST_TABLES = 12
# Below the plot: curves and dots may lie anywhere in it.
_LEGEND: dict[str, Any] = {"fontsize": 9, "loc": "upper left", "bbox_to_anchor": (-0.02, -0.15), "borderaxespad": 0.0}
Bins = Sequence[Mapping[str, Any]]


def confusion_matrix(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Sheet:
    """Rows are the truth; every cell has its number of cases and its share of the row."""
    names = [shortened(name, 22) for name in classes]
    longest = max(map(len, names))
    side = max(0.95 * len(classes), 2.0)
    turned = len(classes) > 3 or longest > 11
    sheet = Sheet(side + 1.1 + 0.1 * longest, side + 0.8 + (0.075 * longest if turned else 0.0))
    with sheet as figure:
        axes = figure.subplots()
        _matrix(axes, np.asarray(counts), 9.5)
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks(range(len(names)), names, rotation=40 if turned else 0, ha="right" if turned else "center")
        axes.set_xlabel("predicted")
        axes.set_ylabel("reference")
    return sheet


def two_by_two(per_class: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """For each class that may apply a table: reference yes and no against predicted yes and no."""
    columns = min(len(per_class), 4)
    rows = -(-len(per_class) // columns)
    sheet = Sheet(2.45 * columns, 2.75 * rows)
    with sheet as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for index, (name, found) in enumerate(per_class.items()):
            axes = panels[index]
            _matrix(axes, np.array([[found["true_positive"], found["false_negative"]],
                                    [found["false_positive"], found["true_negative"]]]), 9.5)
            axes.set_xticks([0, 1], ["yes", "no"])
            axes.set_yticks([0, 1], ["yes", "no"])
            axes.set_title(shortened(name, 24))
            axes.set_xlabel("predicted" if index + columns >= len(per_class) else "")
            axes.set_ylabel("reference" if index % columns == 0 else "")
        for axes in panels[len(per_class):]:
            axes.set_visible(False)
    return sheet


def roc_and_reliability(curves: Mapping[str, Mapping[str, Any]], areas: Mapping[str, float | None],
                        bins: Bins, ece: float | None, uncalibrated: Mapping[str, Any] | None, announced: str) -> Sheet:
    """ROC of each class (left) and how often came true what was announced (right), before and after calibration.

    Args:
        curves: class to {"false_positive_rate", "sensitivity"}; empty for none.
        areas: class to the area under its curve, None where unknown.
        bins: of the probabilities as the model gives them (`medmae.metrics.calibration.reliability`).
        ece: their expected calibration error.
        uncalibrated: {"bins", "ece"} without the temperature, or None.
        announced: what the probabilities are of.
    """
    both = bool(curves)
    sheet = Sheet(9.4 if both else 4.7, 5.1 + 0.25 * max(len(curves), 2))
    with sheet as figure:
        panels = list(figure.subplots(1, 2 if both else 1, squeeze=False).flat)
        if both:
            _draw_roc(panels[0], curves, areas)
        _draw_reliability(panels[-1], bins, ece, uncalibrated, announced)
    return sheet


def _matrix(axes: Axes, counts: np.ndarray, size: float) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(shares, cmap=_blues(), vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        told = f"{counts[row, column]}\n{100 * shares[row, column]:.0f} %" if totals[row, 0] else "0\n–"
        axes.text(column, row, told, ha="center", va="center", fontsize=size, linespacing=1.25,
                  color="white" if shares[row, column] > 0.55 else INK)
    axes.grid(False)
    axes.set_xticks(np.arange(counts.shape[1] - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(counts.shape[0] - 1) + 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _blues() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("share", ["#f2f5f8", BLUE])


def _draw_roc(axes: Axes, curves: Mapping[str, Mapping[str, Any]], areas: Mapping[str, float | None]) -> None:
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
    for index, (name, points) in enumerate(curves.items()):
        area = areas.get(name)
        axes.plot(points["false_positive_rate"], points["sensitivity"], color=CYCLE[index % len(CYCLE)],
                  label=shortened(name, 24) + ("" if area is None else f"  (AUC {area:.3f})"))
    _unit_square(axes, "1 − specificity", "sensitivity")
    axes.set_title("ROC")
    axes.legend(**_LEGEND)


def _draw_reliability(axes: Axes, bins: Bins, ece: float | None, uncalibrated: Mapping[str, Any] | None,
                      announced: str) -> None:
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
    if uncalibrated is not None:
        _bins(axes, uncalibrated["bins"], SOFT, f"without temperature  (ECE {uncalibrated['ece']:.3f})", "--")
    told = "" if ece is None else f"  (ECE {ece:.3f})"
    _bins(axes, bins, BLUE, ("as given" if uncalibrated is None else "calibrated") + told, "-")
    _unit_square(axes, f"probability of {announced}", "how often it was so")
    axes.set_title("Reliability")
    axes.legend(**_LEGEND)


def _bins(axes: Axes, bins: Bins, color: str, label: str, line: str) -> None:
    """Dots at the mean probability of each bin, larger where it holds more cases."""
    counts = np.array([one["count"] for one in bins], float)
    sizes = 18 + 130 * counts / max(float(counts.max(initial=0)), 1.0)
    x, y = [one["probability"] for one in bins], [one["frequency"] for one in bins]
    axes.plot(x, y, line, color=color, linewidth=1.3, label=label)
    axes.scatter(x, y, s=sizes, color=color, alpha=0.75, edgecolors="white", linewidths=0.8, zorder=3)


def _unit_square(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
