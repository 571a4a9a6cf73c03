"""Report of an evaluation: scores of every case, their spread, and the worst, middle and best case in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medmae.datasets import load_dataset
from medmae.files import read_json
from medmae.models import ModelInfo, load_info, resolve_model
from medmae.reports.cases import compared_cases, compared_prediction, label_colors, named_colors, telling_cases
from medmae.reports.classification_scores import classification_facts
from medmae.reports.finetune_report import ORIENTATION_NOTE, OVERLAY_NOTE, add_scores
from medmae.reports.page import Page, number
from medmae.reports.pictures import Compared, overlays
from medmae.run_folder import RunFolder


def build(run: RunFolder) -> Page:
    """The page of an evaluate run."""
    inputs = run.spec["inputs"]
    scores = read_json(run.path / "result.json", "result of the evaluation")
    model = resolve_model(inputs["model"])
    info = load_info(model)
    page = Page(f"Evaluation: {info.name}", f"{len(scores['cases'])} cases of the list '{inputs.get('split', 'test')}'")
    page.facts(_facts(scores))
    page.section("Scores")
    if scores["task"] == "classification" and inputs.get("split") == "validation" and info.calibration.get("cases"):
        page.warning("If these are the validation cases of the model's own dataset, its temperature was fitted on "
                     "them.")
    add_scores(page, scores, info)
    if scores["task"] == "segmentation":
        _add_pictures(page, run, info, scores)
    return page


def _facts(scores: dict[str, Any]) -> dict[str, str | None]:
    if scores["task"] == "classification":
        return classification_facts(scores)
    distances = [value for value in scores.get("hd95_mm", {}).values() if value is not None]
    facts: dict[str, str | None] = {"mean Dice": number(scores["mean_dice"])}
    if scores.get("mean_dice_interval"):
        facts["95 % interval"] = interval(scores["mean_dice_interval"])
    if distances:
        facts["mean HD95 (mm)"] = number(sum(distances) / len(distances), 1)
    return facts


def interval(values: list[float] | None) -> str:
    """Two bounds as text."""
    return "–" if not values else f"{values[0]:.3f} … {values[1]:.3f}"


def _add_pictures(page: Page, run: RunFolder, info: ModelInfo, scores: dict[str, Any]) -> None:
    cases = _pictured(run, info, scores)
    if not cases:
        return
    page.section("Worst, middle and best case")
    page.legend(named_colors(info), OVERLAY_NOTE)
    sheet = overlays(cases, label_colors(info))
    names = ", ".join(case.name for case in cases)
    page.figure(sheet.png, f"Reference and prediction drawn over the images of {names}.",
                "" if all(case.is_2d for case in cases) else ORIENTATION_NOTE, sheet.css_width)


def _pictured(run: RunFolder, info: ModelInfo, scores: dict[str, Any]) -> list[Compared]:
    """Telling cases with the predictions that the run wrote, or made again where it kept none."""
    inputs, config = run.spec["inputs"], run.spec["config"]
    chosen = telling_cases(scores, load_dataset(inputs["dataset"]), [inputs.get("split") or "test"])
    if not inputs.get("out"):
        return compared_cases(chosen, info, resolve_model(inputs["model"]), str(config.get("device", "auto")))
    suffix = config.get("format", "nii.gz")
    return [compared_prediction(case, Path(inputs["out"]) / f"{case.id}.{suffix}", info.modality, note)
            for case, note in chosen]
