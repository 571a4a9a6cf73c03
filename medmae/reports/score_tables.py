"""Score tables of segmentations: the object of ``evaluate --json`` as tables and charts of a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmae.reports.cases import mean_dice, worst_to_best
from medmae.reports.charts import dice_boxes
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
