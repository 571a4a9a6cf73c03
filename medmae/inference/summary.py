"""Tables of results: ``summary.csv`` of a segmentation."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

SUMMARY = "summary.csv"
COLUMNS = ("image", "output", "label", "value", "voxels", "ml", "seconds", "error", "area_mm2", "confidence")


def table_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV text; None and missing values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summary_text(results: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, str]]) -> str:
    """``summary.csv``: a row for each label of each result, and one for each failure ("image" and "reason")."""
    rows: list[dict[str, Any]] = []
    for result in results:
        shared = {name: result[name] for name in ("image", "output", "seconds")}
        rows += [{**shared, "label": name, **{key: value for key, value in size.items() if key in COLUMNS}}
                 for name, size in result["labels"].items()]
    rows += [{"image": failure["image"], "error": failure["reason"]} for failure in failures]
    return table_text(COLUMNS, rows)
