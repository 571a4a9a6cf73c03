"""Charts: loss curves, validation curves, box plots of Dice, ROC curves, comparison of arms. Each returns PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medmae.metrics import roc_points
from medmae.reports.drawing import BLUE, CYCLE, INK, LINE, SOFT, Color, Sheet, grid_of_axes, shortened, smoothed

NOT_LOSSES = ("step", "total", "seconds", "eta_s", "data_wait_s", "epoch", "stage", "message", "fold", "folds",
              "memory_bytes")


def curves_of(records: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Every figure of the training records as name: (steps, values); the minimised loss first, learning rate last."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        if "loss" not in record and record.get("stage") not in (None, "train", "validation"):
            continue
        for name, value in record.items():
            usable = isinstance(value, (int, float)) and not isinstance(value, bool) and name not in NOT_LOSSES
            if usable and "step" in record:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(float(record["step"]))
                values.append(float(value))
    order = sorted(curves, key=lambda name: (name == "lr", name != "loss", list(curves).index(name)))
    return {name: curves[name] for name in order}


def curve_panels(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], columns: int = 3) -> Sheet:
    """One panel for each curve over the steps; noisy ones as a smooth line over the raw values."""
    columns = min(columns, max(len(curves), 1))
    rows = max(-(-len(curves) // columns), 1)
    sheet = Sheet(3.42 * columns, 2.35 * rows)
    with sheet as figure:
        panels = [axes for row in grid_of_axes(figure, rows, columns) for axes in row]
        for index, (name, (steps, values)) in enumerate(curves.items()):
            axes, color = panels[index], SOFT if name == "lr" else CYCLE[index % len(CYCLE)]
            noisy = len(values) > 40 and name != "lr"
            axes.plot(steps, values, color=color, alpha=0.25 if noisy else 1, linewidth=1 if noisy else 1.8,
                      marker="o" if len(values) < 25 else "", markersize=4)
            if noisy:
                axes.plot(steps, smoothed(values, max(len(values) // 25, 5)), color=color)
            low, high = min(values), max(values)
            if name != "lr" and low > 0 and high / low > 30:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            elif name != "lr" and noisy:  # the first steps must not flatten everything after them
                bottom, top = np.percentile(values[len(values) // 50:], [0, 99.5])
                axes.set_ylim(bottom - 0.05 * (top - bottom) - 1e-9, top + 0.12 * (top - bottom) + 1e-9)
            if axes.get_yscale() == "linear":  # no "1e-7 + 0.9999999" above a curve that hardly changes
                axes.ticklabel_format(axis="y", useOffset=False)
            axes.set_title("learning rate" if name == "lr" else name.replace("_", " "))
            axes.set_xlabel("step")
        for axes in panels[len(curves):]:
            axes.set_visible(False)
    return sheet


def overlaid_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], ylabel: str,
                    width: float = 5.2) -> Sheet:
    """Several curves over the steps in one panel, with a legend."""
    sheet = Sheet(width, 3.0)
    with sheet as figure:
        axes = figure.subplots()
        for index, (name, (steps, values)) in enumerate(curves.items()):
            color = CYCLE[index % len(CYCLE)]
            if len(values) > 40:
                axes.plot(steps, values, color=color, alpha=0.18, linewidth=1)
                values = smoothed(values, max(len(values) // 25, 5))
            axes.plot(steps, values, color=color, label=name)
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        axes.legend()
    return sheet


def dice_boxes(values: Mapping[str, Sequence[float]], colors: Mapping[str, Color]) -> Sheet:
    """Dice of every case, one box a label, every case as a dot."""
    names = list(values)
    sheet = Sheet(7.2, 0.85 + 0.52 * max(len(names), 1))
    with sheet as figure:
        axes = figure.subplots()
        for row, name in enumerate(names):
            found, color = list(values[name]), colors.get(name, (0.12, 0.44, 0.70))
            if found:
                axes.boxplot([found], positions=[row], widths=0.55, orientation="horizontal", showfliers=False,
                             patch_artist=True, boxprops={"facecolor": (*color, 0.35), "edgecolor": INK},
                             medianprops={"color": INK, "linewidth": 2}, whiskerprops={"color": SOFT},
                             capprops={"color": SOFT}, manage_ticks=False)
                offsets = np.linspace(-0.16, 0.16, len(found)) if len(found) > 1 else [0.0]
                axes.plot(found, row + np.asarray(offsets), "o", color=color, markersize=5, markeredgecolor=INK,
                          markeredgewidth=0.6)
        axes.set_yticks(range(len(names)), [shortened(name, 26) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("Dice")
    return sheet


def roc_curves(truths: Mapping[str, Sequence[bool]], scores: Mapping[str, Sequence[float]],
               areas: Mapping[str, float | None]) -> Sheet:
    """ROC of each class against the rest; classes that all or no cases have are left out."""
    sheet = Sheet(4.6, 4.4)
    with sheet as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.5)
        for index, name in enumerate(truths):
            if 0 < sum(truths[name]) < len(truths[name]):
                area = areas.get(name)
                label = shortened(name, 24) + ("" if area is None else f"  (AUC {area:.3f})")
                points = roc_points(truths[name], scores[name]) or ([], [])
                axes.plot(*points, color=CYCLE[index % len(CYCLE)], label=label)
        axes.set_aspect("equal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("1 − specificity")
        axes.set_ylabel("sensitivity")
        axes.legend(loc="lower right")
    return sheet


def compared_arms(names: Sequence[str], without: Sequence[float | None], pretrained: Sequence[float | None],
                  xlabel: str) -> Sheet:
    """From-scratch and pretrained scores side by side: a grey and a blue dot joined by a line, one row a label."""
    sheet = Sheet(7.2, 0.95 + 0.42 * max(len(names), 1))
    with sheet as figure:
        axes = figure.subplots()
        for row, (low, high) in enumerate(zip(without, pretrained, strict=True)):
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color=LINE, linewidth=5, solid_capstyle="round", zorder=1)
            if low is not None:
                axes.plot([low], [row], "o", color=SOFT, markersize=9, label="from scratch" if row == 0 else None)
            if high is not None:
                axes.plot([high], [row], "o", color=BLUE, markersize=9, label="pretrained" if row == 0 else None)
        axes.set_yticks(range(len(names)), [shortened(name, 30) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(xlabel)
        figure.legend(loc="outside upper right", ncols=2)
    return sheet


def label_curves(arms: Mapping[str, Sequence[tuple[float, float | None, Sequence[float]]]], ylabel: str,
                 ticks: Mapping[float, str]) -> Sheet:
    """Score over labelled cases: a line through each arm's means, its seeds as dots beside them.

    Args:
        arms: name to (labelled cases, mean, scores of the seeds) in rising order.
        ylabel: what the score is.
        ticks: labelled cases to what is written below them.
    """
    sheet = Sheet(7.2, 4.0)
    with sheet as figure:
        axes = figure.subplots()
        for number, (name, points) in enumerate(arms.items()):
            color, shift = CYCLE[number % len(CYCLE)], 1.025 ** (number - (len(arms) - 1) / 2)
            known = [(labels * shift, mean) for labels, mean, _ in points if mean is not None]
            axes.plot(*zip(*known, strict=True), color=color, marker="o", markersize=6.5, label=name) if known else None
            for labels, _, scores in points:
                axes.plot([labels * shift] * len(scores), scores, "o", color=color, markersize=4.5, alpha=0.4,
                          markeredgewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.xaxis.set_minor_locator(_no_ticks())
        if ticks:
            axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)
        axes.set_xlabel("labelled training cases")
        axes.set_ylabel(ylabel)
        axes.legend(loc="best")
    return sheet


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
