"""Report of a pretraining run: what was learned from, how the losses went, what the network fills in."""

from __future__ import annotations

from typing import Any

import numpy as np

from medmae.models import ModelInfo, load_info
from medmae.reports.charts import curve_panels, curves_of
from medmae.reports.page import Page
from medmae.reports.pictures import reconstructions
from medmae.reports.run_facts import configuration, duration, training_records
from medmae.run_folder import RunFolder

METHODS = {"gl-mae": "GL-MAE (3-D, global and local views)", "vis-mae": "VIS-MAE (2-D, windows of a Swin transformer)"}

BRIGHTNESS = (" The network predicts every patch standardised; its brightness and contrast are given back from the "
              "image.")


def build(run: RunFolder) -> Page:
    """The page of a pretraining run."""
    config = configuration(run)
    method = str(config.get("method", ""))
    page = Page(f"Pretraining: {run.path.resolve().name}",
                f"{METHODS.get(method, method)}, preset {config.get('preset')}")
    info = load_info(run.model) if (run.model / "model.json").is_file() else None
    records = training_records(run)
    page.facts(_facts(records, info))
    collapse = (info.training.get("collapse") or {}) if info is not None else {}
    if collapse.get("collapsed"):
        page.warning(f"The consistency terms have collapsed since step {collapse.get('since_step')}: "
                     f"{collapse.get('reason')}. The encoder will be of little use beyond its reconstruction part.")
    add_losses(page, records)
    add_reconstructions(page, run, info)
    if info is not None:
        page.section("Encoder")
        page.pairs(_encoder(info))
        page.paragraph("Finetune it with a few labelled cases:")
        page.commands([f"medmae finetune --dataset dataset.json --encoder {run.path.name} --cases 8 --out RUN"])
    return page


def _facts(records: list[dict[str, Any]], info: ModelInfo | None) -> dict[str, str | None]:
    facts: dict[str, str | None] = {}
    if info is not None:
        facts["images"] = str(info.training.get("images", "–"))
    if records:
        facts["steps"] = f"{records[-1]['step']}"
        name = next((one for one in records[-1] if one.startswith("reconstruction")), "loss")
        told = "reconstruction error" if name != "loss" else "error of hidden pixels"
        facts[f"{told}, first → last"] = f"{_mean(records[:10], name):.3g} → {_mean(records[-10:], name):.3g}"
        facts["training time"] = duration(float(records[-1].get("seconds", 0)))
        facts["collapsed"] = _has_collapsed(info)
        facts["of the training time waiting for data"] = _waiting_share(records[-1])
    return facts


def _has_collapsed(info: ModelInfo | None) -> str | None:
    """Whether the embeddings of a run with a teacher collapsed; None for runs without one."""
    collapse = None if info is None else info.training.get("collapse")
    return None if not collapse else "yes" if collapse.get("collapsed") else "no"


def _waiting_share(record: dict[str, Any]) -> str | None:
    """Which part of the training time (of the last attempt) went by before data was there."""
    if not record.get("seconds") or "data_wait_s" not in record:
        return None
    return f"{100 * float(record['data_wait_s']) / float(record['seconds']):.1f} %"


def _mean(records: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([record[name] for record in records if name in record]))


def add_losses(page: Page, records: list[dict[str, Any]], heading: bool = True) -> None:
    """The curve of every loss term; without `heading` below one that is there already."""
    curves = curves_of(records)
    if not curves:
        return
    if heading:
        page.section("Losses")
    sheet = curve_panels(curves)
    told = "; ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, (_, values) in curves.items())
    page.figure(sheet.png, f"Curves over the training steps: {told}.",
                "Pale: every step; strong: moving average. The minimised loss comes first.", sheet.css_width)


def add_reconstructions(page: Page, run: RunFolder, info: ModelInfo | None, limit: int = 6,
                        heading: bool = True) -> None:
    """Pictures of masked images and of what the network fills in."""
    file = run.path / "reconstructions.npz"
    if not file.is_file():
        return
    with np.load(file, allow_pickle=False) as data:
        images, masked, filled = data["images"], data["masked"], data["reconstructions"]
    if len(images) == 0:
        return
    if heading:
        page.section("Reconstructions")
    sheet = reconstructions(images, masked, filled, None if info is None else info.spacing_mm, limit)
    share = 100 * float(masked.mean())
    is_standardised = (configuration(run).get("settings") or {}).get("normalise_target")
    page.figure(sheet.png, f"{min(len(images), limit)} examples: the image, the {100 - share:.0f} % that the network "
                "sees, and the hidden parts as it fills them in.",
                f"{share:.0f} % is hidden (grey). In the last row the hidden parts are the network's, the seen ones "
                "the image's own." + (BRIGHTNESS if is_standardised else ""), sheet.css_width)


def _encoder(info: ModelInfo) -> dict[str, Any]:
    spacing = "fitted by the longest side" if info.spacing_mm is None else (
        " × ".join(f"{value:g}" for value in info.spacing_mm) + " mm (k, j, i)")
    return {"network": f"{info.architecture['name']}, preset {info.preset}",
            "input": " × ".join(map(str, info.input_size)), "spacing": spacing, "orientation": info.orientation,
            "modality": _modalities(info), "images": info.training.get("images"),
            "subjects": info.training.get("subjects")}


def _modalities(info: ModelInfo) -> str:
    counts = info.training.get("modalities") or {}
    return ", ".join(f"{code} ({count} images)" for code, count in counts.items()) or info.modality
