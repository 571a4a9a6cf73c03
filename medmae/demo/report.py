"""The page that the demonstration ends in: pictures, curves, scores with and without pretraining, commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmae.datasets import load_dataset
from medmae.demo.plan import CHAINS, CT_DATA, FINDING_DATA, LUNG_DATA
from medmae.files import read_json
from medmae.models import load_info
from medmae.reports.cases import compared_prediction, label_colors, named_colors
from medmae.reports.charts import compared_arms, overlaid_curves, roc_curves
from medmae.reports.finetune_report import ORIENTATION_NOTE, OVERLAY_NOTE
from medmae.reports.page import Page, number
from medmae.reports.pictures import Compared, overlays
from medmae.reports.pretrain_report import add_losses, add_reconstructions
from medmae.reports.run_facts import duration, footer, training_records
from medmae.run_folder import RunFolder

ARMS = {"scratch": "from scratch", "pretrained": "pretrained"}
Scores = Mapping[str, Mapping[str, Any]]
"""Results of the two arms."""


def write_demo_report(root: Path, seconds: float) -> Path:
    """Write ``root/report.html`` from the runs below `root`; `seconds` is how long they took."""
    ct, lungs, finding = (_scores(root, prefix) for prefix in ("ct", "xray", "finding"))
    page = Page("MedMAE demonstration", "Pretrained on images without labels, finetuned with four labelled cases, "
                "scored on others. All images are synthetic.")
    page.facts({"CT organs, mean Dice": _pair(ct, "mean_dice"), "lungs and heart, mean Dice": _pair(lungs, "mean_dice"),
                "finding, AUC": _pair(finding, "auc"), "time": duration(seconds)})
    page.paragraph("Left of each arrow: the same network trained from scratch on the same labelled cases with the same "
                   "schedule. Right: from the encoder that was pretrained on the unlabelled images before.")
    _add_scores(page, ct, lungs, finding)
    _add_ct(page, root, ct)
    _add_xray(page, root, lungs, finding)
    _add_commands(page)
    return page.write(root / "report.html", footer())


def _scores(root: Path, prefix: str) -> Scores:
    return {arm: read_json(root / f"runs/{prefix}-{arm}-test" / "result.json", "result") for arm in ARMS}


def _pair(scores: Scores, key: str) -> str:
    return f"{number(scores['scratch'][key], 2)} → {number(scores['pretrained'][key], 2)}"


def _add_scores(page: Page, ct: Scores, lungs: Scores, finding: Scores) -> None:
    page.section("Scores with and without pretraining")
    rows = [_row(f"CT: {name}", ct, lambda one, name=name: one["dice"][name]) for name in ct["scratch"]["dice"]]
    rows += [_row(f"X-ray: {name}", lungs, lambda one, name=name: one["dice"][name])
             for name in lungs["scratch"]["dice"]]
    means = [_row("CT: mean Dice", ct, lambda one: one["mean_dice"]),
             _row("X-ray: mean Dice", lungs, lambda one: one["mean_dice"]),
             _row("X-ray finding: AUC", finding, lambda one: one["auc"])]
    shown = [*means, *rows]
    names, without, pretrained = zip(*shown, strict=True)
    sheet = compared_arms(names, without, pretrained, "Dice, or AUC")
    told = "; ".join(f"{name} {number(low)} from scratch and {number(high)} pretrained" for name, low, high in shown)
    page.figure(sheet.png, f"Scores of both arms: {told}.", "", sheet.css_width)
    table = [[name, number(low), number(high), _difference(low, high)] for name, low, high in shown]
    page.table(["score on held-out cases", "from scratch", "pretrained", "difference"], table,
               f"Segmentation: {len(ct['scratch']['cases'])} CT volumes and {len(lungs['scratch']['cases'])} X-rays, 4 "
               f"labelled cases for training. Finding: {len(finding['scratch']['cases'])} X-rays, 16 labelled for "
               "training.", numeric=range(1, 4), strong=range(len(means)))
    page.warning("A demonstration, not a measurement: synthetic images, few cases, one seed, the smallest networks, a "
                 "minute or two of training. It shows that the chain works, not how good it gets, nor what pretraining "
                 "brings: that takes far longer pretraining, and with other schedules these differences change sign.")


def _row(name: str, scores: Scores, value: Any) -> tuple[str, float | None, float | None]:
    return name, value(scores["scratch"]), value(scores["pretrained"])


def _difference(low: float | None, high: float | None) -> str:
    return number(None) if low is None or high is None else f"{high - low:+.3f}"


def _add_ct(page: Page, root: Path, scores: Scores) -> None:
    page.section("CT: GL-MAE in three dimensions")
    page.paragraph("Every volume has its own shapes, contrast, noise, spacing and storage order; some are oblique.")
    page.subsection("Held-out cases")
    _add_overlays(page, root, CT_DATA, "ct", scores, 2)
    _add_training(page, root, "ct")


def _add_xray(page: Page, root: Path, lungs: Scores, finding: Scores) -> None:
    page.section("X-ray: VIS-MAE in two dimensions")
    page.subsection("Held-out cases")
    _add_overlays(page, root, LUNG_DATA, "xray", lungs, 4)
    _add_training(page, root, "xray")
    page.subsection("Classification: is there an opacity in a lung?")
    cases = {name: scores["cases"] for name, scores in finding.items()}
    positive = list(load_dataset(root / FINDING_DATA).labels)[-1]
    sheet = roc_curves({ARMS[arm]: [case["label"] == positive for case in cases[arm]] for arm in ARMS},
                       {ARMS[arm]: [case["probabilities"][positive] for case in cases[arm]] for arm in ARMS},
                       {ARMS[arm]: finding[arm]["auc"] for arm in ARMS})
    told = "; ".join(f"{ARMS[arm]}: AUC {number(finding[arm]['auc'])}, 95 % interval "
                     + " to ".join(number(bound, 2) for bound in finding[arm]["auc_interval"] or ()) for arm in ARMS)
    page.figure(sheet.png, f"ROC curves. {told}.", f"{told}.", sheet.css_width)


def _add_overlays(page: Page, root: Path, dataset_file: str, prefix: str, scores: Scores, count: int) -> None:
    """The first test cases with the predictions of both arms."""
    dataset = load_dataset(root / dataset_file)
    info = load_info(root / f"runs/{prefix}-pretrained/model")
    page.legend(named_colors(info), OVERLAY_NOTE)
    for arm in reversed(ARMS):
        shown: list[Compared] = []
        for case in dataset.cases("test")[:count]:
            dice = next(one["dice"] for one in scores[arm]["cases"] if case.images[0].match(one["image"]))
            known = [value for value in dice.values() if value is not None]
            shown.append(compared_prediction(case, root / f"predictions/{prefix}-{arm}" / f"{case.id}.nii.gz",
                                             info.modality, f"Dice {sum(known) / max(len(known), 1):.2f}"))
        sheet = overlays(shown, label_colors(info))
        names = ", ".join(f"{case.name} ({case.note})" for case in shown)
        caption = f"{ARMS[arm].capitalize()}. " + ("" if shown[0].is_2d else ORIENTATION_NOTE)
        page.figure(sheet.png, f"{ARMS[arm]}: reference and prediction over {names}.", caption, sheet.css_width)


def _add_training(page: Page, root: Path, prefix: str) -> None:
    encoder = RunFolder.open(root / f"runs/{prefix}-encoder")
    page.subsection("Pretraining: hidden parts filled in")
    add_reconstructions(page, encoder, load_info(encoder.model), heading=False)
    page.subsection("Pretraining: losses")
    add_losses(page, training_records(encoder), heading=False)
    page.subsection("Finetuning: loss with and without pretraining")
    curves = {}
    for arm in ARMS:
        records = training_records(RunFolder.open(root / f"runs/{prefix}-{arm}"))
        curves[ARMS[arm]] = ([record["step"] for record in records], [record["loss"] for record in records])
    sheet = overlaid_curves(curves, "loss")
    told = "; ".join(f"{name} from {values[0]:.2f} to {values[-1]:.2f}" for name, (_, values) in curves.items())
    page.figure(sheet.png, f"Training loss: {told}.", "", sheet.css_width)


def _add_commands(page: Page) -> None:
    page.section("The commands")
    page.paragraph("Every figure above comes from a run that the command line does in the same way. Typed in this "
                   "folder (with other output folders, since these exist), they do it again:")
    for name, chain in CHAINS.items():
        page.subsection(name)
        page.commands(step.command for step in chain())
    page.paragraph("And for images of your own, once a model is trained on their like:")
    page.commands(["medmae segment --model runs/ct-pretrained --images FILES --out RESULTS"])
