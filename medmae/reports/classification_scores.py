"""The scores of a classification on a page: figures with intervals, confusions, ROC, reliability, cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medmae.reports.classification_charts import (
    MOST_CURVES,
    MOST_MATRIX_CLASSES,
    MOST_TABLES,
    confusion_matrix,
    roc_and_reliability,
    two_by_two,
)
from medmae.reports.drawing import shortened
from medmae.reports.page import NO_VALUE, Page, number

MOST_ROWS = 200
MOST_PROBABILITIES = 8
_OVERALL = {"auc": "AUC", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy",
            "sensitivity": "sensitivity", "specificity": "specificity", "brier": "Brier score"}
_ANNOUNCED = {"positive": "the positive class", "predicted": "the predicted class", "class": "a class"}


def classification_facts(scores: Mapping[str, Any]) -> dict[str, str | None]:
    """The figures that matter most."""
    facts: dict[str, str | None] = {"AUC": number(scores["auc"])}
    if scores.get("auc_interval"):
        facts["95 % interval of the AUC"] = with_interval(None, scores["auc_interval"])
    return facts | {name: number(scores.get(key)) for key, name in _OVERALL.items()
                    if key in ("accuracy", "balanced_accuracy", "sensitivity", "specificity")
                    and scores.get(key) is not None}


def add_classification_scores(page: Page, scores: Mapping[str, Any]) -> None:
    """Everything that a result object of a classification says; what it lacks is left out."""
    cases = [case for case in scores["cases"] if "probabilities" in case]
    if not cases:
        page.paragraph("No case was scored.")
        return
    classes = list(cases[0]["probabilities"])
    if "per_class" in scores:
        _add_figures(page, scores, len(cases))
        _add_curves(page, scores)
        _add_confusions(page, scores, classes)
    _add_cases(page, cases, classes)


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """"0.843 (0.705 … 0.951)"; the interval alone without a value."""
    bounds = "" if not interval else f"{interval[0]:.3f} … {interval[1]:.3f}"
    return bounds or NO_VALUE if value is None else number(value) + (f" ({bounds})" if bounds else "")


def _add_figures(page: Page, scores: Mapping[str, Any], cases: int) -> None:
    positive = scores.get("positive")
    if positive is not None:
        meaning = f"Sensitivity and specificity are those of the class '{positive}'."
    elif scores.get("multi_label"):
        meaning = ("Means over the classes; a class counts as found from a probability of 0.5, and a case is accurate "
                   "when all its classes are right.")
    else:
        meaning = "AUC, sensitivity and specificity are means over the classes, each against the rest."
    subjects = len({case.get("subject", case["image"]) for case in scores["cases"]})
    page.table(["score", "value", "95 % interval"],
               [[name, number(scores.get(key)), with_interval(None, scores.get(f"{key}_interval"))]
                for key, name in _OVERALL.items()] + [["expected calibration error", number(scores.get("ece")),
                                                       NO_VALUE]],
               f"{_plural(cases, 'case')} of {_plural(subjects, 'subject')}; intervals are bootstraps over subjects. "
               f"{meaning} A dash: too few cases to say.", numeric=[1, 2])
    if len(scores["per_class"]) > 2 or scores.get("multi_label"):
        page.table(["class", "with", "without", "AUC", "sensitivity", "specificity"],
                   [[name, found["true_positive"] + found["false_negative"],
                     found["false_positive"] + found["true_negative"],
                     *[with_interval(found[key], found[f"{key}_interval"])
                       for key in ("auc", "sensitivity", "specificity")]]
                    for name, found in scores["per_class"].items()],
                   "Cases with and without each class, and its figures against the rest with 95 % intervals.",
                   numeric=range(1, 6))


def _add_curves(page: Page, scores: Mapping[str, Any]) -> None:
    calibration = scores.get("calibration") or {}
    curves = {name: points for name, points in scores.get("roc", {}).items() if points}
    areas = scores["auc_per_class"]
    shown = sorted(curves, key=lambda name: areas.get(name) or 0.0)[:MOST_CURVES]
    curves = {name: points for name, points in curves.items() if name in shown}
    if not curves and not calibration.get("bins"):
        return
    uncalibrated = calibration.get("uncalibrated")
    sheet = roc_and_reliability(curves, areas, calibration.get("bins", []), scores.get("ece"), uncalibrated,
                                _ANNOUNCED[calibration.get("of", "class")])
    caption = calibration.get("told", "")
    caption += " On the diagonal, probabilities mean what they say; larger dots stand for more cases."
    if not curves:
        caption += " There is no ROC curve: no class has cases with and without it."
    elif len(scores["roc"]) > len(curves):
        caption += (f" Shown are the {len(curves)} classes with the lowest AUC." if len(curves) == MOST_CURVES else
                    " Classes that all or no cases have are left out of the ROC.")
    before = "" if uncalibrated is None else f", {number(uncalibrated['ece'])} without the temperature"
    page.figure(sheet.png, f"ROC curves, AUC {number(scores.get('auc'))}, and reliability diagram, expected "
                f"calibration error {number(scores.get('ece'))}{before}.", caption.strip(), sheet.css_width)


def _add_confusions(page: Page, scores: Mapping[str, Any], classes: list[str]) -> None:
    if scores.get("multi_label"):
        worst = sorted(classes, key=lambda name: scores["per_class"][name]["auc"] or 0.0)[:MOST_TABLES]
        shown = {name: scores["per_class"][name] for name in classes if name in worst}
        sheet = two_by_two(shown)
        left_out = f" Shown are the {MOST_TABLES} classes with the lowest AUC." if len(classes) > MOST_TABLES else ""
        page.subsection("Each class by itself")
        page.figure(sheet.png, f"Two-by-two tables of {', '.join(shown)}.",
                    f"Number of cases and share of the row.{left_out}", sheet.css_width)
        return
    counts = scores.get("confusion")
    if not counts:
        return
    page.subsection("Confusions")
    if len(classes) <= MOST_MATRIX_CLASSES:
        sheet = confusion_matrix(counts, classes)
        told = "; ".join(f"{truth}: " + ", ".join(f"{count} as {found}" for count, found in zip(row, classes,
                                                                                             strict=True))
                         for truth, row in zip(classes, counts, strict=True))
        page.figure(sheet.png, f"Confusion matrix. {told}.", "Number of cases and share of the row.", sheet.css_width)
        return
    wrong = sorted(((count, truth, classes[column]) for truth, row in zip(classes, counts, strict=True)
                    for column, count in enumerate(row) if count and classes[column] != truth), reverse=True)
    page.table(["reference", "predicted", "cases"], [[truth, found, count] for count, truth, found in wrong[:30]],
               "The most frequent confusions.", numeric=[2])


def _add_cases(page: Page, cases: list[Mapping[str, Any]], classes: list[str]) -> None:
    page.subsection("Cases")
    wrong = sorted(cases, key=lambda case: case["label"] == case["predicted"])[:MOST_ROWS]
    few = len(classes) <= MOST_PROBABILITIES
    columns = [f"p({shortened(name, 16)})" for name in classes] if few else ["highest probability"]
    rows = [[case["image"], _names(case["label"]), _names(case["predicted"]),
             *[number(value) for value in (case["probabilities"].values() if few
                                           else [max(case["probabilities"].values())])]] for case in wrong]
    hidden = len(cases) - len(wrong)
    page.table(["case", "reference", "predicted", *columns], rows,
               "Wrongly classified cases first (marked)."
               + (f" {hidden} more cases are left out." if hidden > 0 else ""),
               numeric=range(3, 3 + len(columns)),
               weak=[row for row, case in enumerate(wrong) if case["label"] != case["predicted"]])


def _plural(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _names(label: Any) -> str:
    return ", ".join(label) or "none" if isinstance(label, list) else str(label)
