"""Score tables: the object of ``evaluate --json`` as tables and charts of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmae.reports.cases import mean_dice, worst_to_best
from medmae.reports.charts import dice_boxes, roc_curves
from medmae.reports.drawing import Color
from medmae.reports.page import Page, number

MOST_ROWS = 200


def add_segmentation_scores(page: Page, scores: Mapping[str, Any], colors: Mapping[str, Color]) -> None:
    """Box plot of Dice per label and the table of cases, worst first."""
    labels = list(scores["dice"])
    values = {name: [case["dice"][name] for case in scores["cases"] if case["dice"].get(name) is not None]
              for name in labels}
    if len(scores["cases"]) > 1:
        sheet = dice_boxes(values, colors)
        told = "; ".join(f"{name}: mean {number(scores['dice'][name])} of {len(values[name])} cases" for name in labels)
        page.figure(sheet.png, f"Box plot of Dice per label. {told}.",
                    "Dice of every case (dots), with median and quartiles. Cases whose reference lacks a label do not "
                    "count for it.", sheet.css_width)
    columns, rows, caption = _case_table(scores, labels)
    page.table(columns, rows, caption, numeric=range(1, len(columns)), strong=[0])


def _case_table(scores: Mapping[str, Any], labels: list[str]) -> tuple[list[str], list[list[Any]], str]:
    ranked = worst_to_best(scores)
    unscored = [case for case in scores["cases"] if mean_dice(case) is None]
    rows = [["mean of cases", number(scores["mean_dice"]), *[number(scores["dice"][name]) for name in labels]]]
    rows += [[case["image"], number(mean_dice(case)), *[number(case["dice"].get(name)) for name in labels]]
             for case in (*ranked, *unscored)]
    hidden = len(rows) - 1 - MOST_ROWS
    caption = "Worst cases first; a dash: the reference does not have the label."
    caption += f" {hidden} better cases are left out." if hidden > 0 else ""
    if "hd95_mm" in scores:
        rows.insert(1, ["mean HD95 (mm)", "", *[number(scores["hd95_mm"].get(name), 1) for name in labels]])
    return ["case", "mean Dice", *labels], rows[:MOST_ROWS + 2], caption


def add_classification_scores(page: Page, scores: Mapping[str, Any]) -> None:
    """ROC curves, the table of confusions and the table of cases."""
    cases = [case for case in scores["cases"] if "probabilities" in case]
    if not cases:
        return
    classes = list(cases[0]["probabilities"])
    curves = classes[1:] if len(classes) == 2 else classes
    truths = {name: [_has(case["label"], name) for case in cases] for name in curves}
    values = {name: [float(case["probabilities"][name]) for case in cases] for name in curves}
    areas = scores.get("auc_per_class") or dict.fromkeys(curves, scores.get("auc"))
    if any(0 < sum(truth) < len(truth) for truth in truths.values()):
        sheet = roc_curves(truths, values, areas)
        page.figure(sheet.png, f"ROC curve over {len(cases)} cases; AUC {number(scores.get('auc'))}.", "",
                    sheet.css_width)
    if all(isinstance(case["label"], str) for case in cases):
        counts = [[sum(case["label"] == truth and case["predicted"] == found for case in cases) for found in classes]
                  for truth in classes]
        rows = [[name, *row] for name, row in zip(classes, counts, strict=True)]
        page.table(["reference \\ predicted", *classes], rows, "Number of cases.", numeric=range(1, len(classes) + 1))
    wrong = sorted(cases, key=lambda case: case["label"] == case["predicted"])[:MOST_ROWS]
    page.table(["case", "reference", "predicted", *[f"p({name})" for name in classes]],
               [[case["image"], _names(case["label"]), _names(case["predicted"]),
                 *[number(case["probabilities"][name]) for name in classes]] for case in wrong],
               "Wrongly classified cases first (marked).", numeric=range(3, 3 + len(classes)),
               weak=[row for row, case in enumerate(wrong) if case["label"] != case["predicted"]])


def _has(label: Any, name: str) -> bool:
    return name in label if isinstance(label, list) else label == name


def _names(label: Any) -> str:
    return ", ".join(label) or "none" if isinstance(label, list) else str(label)
