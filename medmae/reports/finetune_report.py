"""Report of a finetuning run: curves, validation scores, and reference against prediction in pictures."""

from __future__ import annotations

from typing import Any

from medmae.datasets import Case, Dataset, load_dataset
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.models import ModelInfo, load_info
from medmae.reports.cases import compared_cases, label_colors, named_colors, telling_cases
from medmae.reports.classification_scores import add_classification_scores
from medmae.reports.page import Page, number
from medmae.reports.pictures import overlays
from medmae.reports.pretrain_report import add_losses
from medmae.reports.run_facts import configuration, duration, training_records
from medmae.reports.score_tables import add_segmentation_scores
from medmae.run_folder import RunFolder

OVERLAY_NOTE = "Filled: reference. Line: the model."
ORIENTATION_NOTE = ("The patient's right is on the left of axial and coronal pictures; anterior is on the left of "
                    "sagittal ones.")


def build(run: RunFolder) -> Page:
    """The page of a finetuning run."""
    config = configuration(run)
    info = load_info(run.model) if (run.model / "model.json").is_file() else None
    scratch = run.spec["inputs"].get("encoder") in (None, "none")
    page = Page(f"Finetuning: {run.path.resolve().name}",
                f"{config.get('method')}, preset {config.get('preset')}, "
                + ("from scratch (no pretraining)" if scratch else "from a pretrained encoder"))
    records = training_records(run)
    scores = _scores(run, "validation.json")
    crossed = _scores(run, "cross_validation.json")
    page.facts(_facts(info, scores, records, crossed))
    add_losses(page, records)
    if crossed is not None:
        _add_cross_validation(page, crossed, info)
    if scores is not None and scores.get("cases"):
        page.section("Validation cases")
        page.paragraph(_selection(scores))
        _add_calibration(page, info, str(config.get("class_balance", "none")))
        add_scores(page, scores, info)
    if info is not None and info.task == "segmentation":
        add_overlays(page, run, info, scores, str(config.get("device", "auto")))
    return page


def _scores(run: RunFolder, name: str) -> dict[str, Any] | None:
    file = run.path / name
    return read_json(file, "scores") if file.is_file() else None


def _facts(info: ModelInfo | None, scores: dict[str, Any] | None, records: list[dict[str, Any]],
           crossed: dict[str, Any] | None) -> dict[str, str | None]:
    facts: dict[str, str | None] = {}
    if crossed is not None:
        facts[f"cross-validation {_figure_name(crossed)}"] = number(crossed[crossed["metric"]])
    if scores and scores.get("task") == "classification":
        facts["validation AUC"] = number(scores.get("auc"))
        if scores.get("accuracy") is not None:
            facts["validation accuracy"] = number(scores["accuracy"])
    elif scores and scores.get("cases"):
        facts["validation Dice"] = number(scores.get("mean_dice"))
    if info is not None:
        cases = info.training.get("cases", info.training.get("images"))
        facts["labelled cases"] = None if cases is None else str(cases)
    if records:
        facts["steps"] = str(records[-1]["step"])
        facts["training time"] = duration(float(records[-1].get("seconds", 0)))
    return facts


def _figure_name(crossed: dict[str, Any]) -> str:
    return {"mean_dice": "Dice"}.get(crossed["metric"], "AUC")


def _add_cross_validation(page: Page, scores: dict[str, Any], info: ModelInfo | None) -> None:
    """Scores of every labelled case by the model that has not seen it, of all of them and fold by fold."""
    name, interval = _figure_name(scores), scores[f"{scores['metric']}_interval"]
    page.section("Cross-validation")
    page.paragraph(
        f"Every labelled case was scored once, by the model of a fold that has not seen it: {name} "
        f"{number(scores[scores['metric']])}"
        + (f" (95 % interval {number(interval[0])} to {number(interval[1])}, bootstrap over subjects)" if interval
           else "")
        + ". The finished model is the ensemble of these models; it has seen all of these cases.")
    page.table(["fold", "cases trained on", "cases held out", name],
               [[one["fold"], one["training_cases"], one["held_out_cases"], number(one["score"])]
                for one in scores["folds"]], "", numeric=range(4))
    add_scores(page, scores, info)


def _selection(scores: dict[str, Any]) -> str:
    """Whether the validation cases chose anything."""
    if scores.get("selected_on"):
        return ("Training ended when their score no longer rose, and the best weights were chosen by them: these "
                "figures are too good. Judge the model on other cases, with medmae evaluate.")
    return "They are scored for this report: the schedule is fixed, and no weights were chosen by them."


def _add_calibration(page: Page, info: ModelInfo | None, class_balance: str) -> None:
    """What was fitted on the validation cases of a classification, and what it changed there."""
    if info is None or info.task != "classification" or not info.calibration:
        return
    found = info.calibration
    if class_balance != "none":
        page.paragraph("Rare classes counted more in training, so the probabilities are those of classes that are "
                       "equally frequent, not those of this dataset (--set class_balance=none gives these).")
    if not found.get("cases"):
        page.warning(f"The probabilities are not calibrated: {found.get('note') or 'no temperature was fitted'}.")
        return
    cases = f"the {found['on']}" if "on" in found else "them"
    page.paragraph(
        f"One figure was fitted to {cases} after training: the temperature {found['temperature']:.3g} that logits are "
        f"divided by. On these cases it changed the negative log-likelihood from {number(found['nll_before'])} to "
        f"{number(found['nll_after'])} and the expected calibration error from {number(found['ece_before'])} to "
        f"{number(found['ece_after'])}; judge it on other cases, with medmae evaluate.")
    if found.get("note"):
        page.warning(f"The temperature says little: {found['note']}.")


def add_scores(page: Page, scores: dict[str, Any], info: ModelInfo | None) -> None:
    """Tables and charts of a result object of either task."""
    if scores["task"] == "classification":
        add_classification_scores(page, scores)
    else:
        add_segmentation_scores(page, scores, {} if info is None else named_colors(info))


def add_overlays(page: Page, run: RunFolder, info: ModelInfo, scores: dict[str, Any] | None, device: str,
                 keys: tuple[str, ...] = ("validation",)) -> None:
    """Worst, middle and best case in pictures; without scores, the first training cases."""
    try:
        dataset = load_dataset(run.spec["inputs"]["dataset"])
    except BadInput as error:  # the images may be gone by the time a report is written again
        page.warning(f"No pictures of cases: {error}")
        return
    chosen = telling_cases(scores, dataset, keys) if scores and scores.get("cases") else _training(dataset)
    cases = compared_cases(chosen, info, run.model, device)
    if not cases:
        return
    page.section("Pictures")
    sheet = overlays(cases, label_colors(info))
    names = ", ".join(f"{case.name} ({case.note})" if case.note else case.name for case in cases)
    page.legend(named_colors(info), OVERLAY_NOTE)
    page.figure(sheet.png, f"Reference and prediction drawn over the images of {names}.",
                "" if all(case.is_2d for case in cases) else ORIENTATION_NOTE, sheet.css_width)


def _training(dataset: Dataset) -> list[tuple[Case, str]]:
    return [(case, "training case") for case in dataset.lists.get("training", ())[:2]]
