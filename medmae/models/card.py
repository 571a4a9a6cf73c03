"""The README.md of a model: what a person needs to know before using it."""

from __future__ import annotations

import json
from typing import Any

from medmae.models.info import ModelInfo

_PURPOSE = {
    "encoder": "A pretrained encoder (with its decoder and mask token), to be finetuned with a few annotated cases.",
    "segmentation": "Segments images; the result lies on the exact grid of the input.",
    "classification": "Classifies images.",
}
_USE = {
    "encoder": "medmae finetune --dataset dataset.json --encoder {name} --out OUT",
    "segmentation": "medmae segment --model {name} --images IMAGE --out OUT",
    "classification": "medmae classify --model {name} --images IMAGE --out OUT",
}


def model_card(info: ModelInfo, *, has_preview: bool) -> str:
    """The card as Markdown."""
    size = " x ".join(map(str, info.input_size))
    spacing = "as stored, fitted to the window" if info.spacing_mm is None else " x ".join(
        f"{value:g}" for value in info.spacing_mm) + " mm"
    facts = [
        ("Task", info.task), ("Method", f"{info.method}, preset {info.preset}"),
        ("Dimensions", f"{info.spatial_dims}-D"), ("Modality", info.modality),
        ("Channels", ", ".join(str(channel.get("name", channel.get("modality", ""))) for channel in info.channels)),
        ("Window", f"{size} ({'k, j, i' if info.spatial_dims == 3 else 'rows, columns'})"),
        ("Spacing (k, j, i)", spacing), ("Orientation", info.orientation),
        ("Licence of the weights", info.licence or "not stated"),
        ("Made by", f"MedMAE {info.medmae}, {info.created}"), ("SHA-256 of the weights", info.weights_sha256),
    ]
    if info.task == "classification":
        facts[-3:-3] = _of_classification(info)
    parts = [f"# {info.name}", _PURPOSE[info.task]]
    if has_preview:
        parts.append("![Preview](preview.png)")
    parts.append("```\n" + _USE[info.task].format(name=_quoted(info.name)) + "\n```")
    parts.append(_table(("", ""), facts))
    if info.labels:
        parts += ["## Labels", _table(("label", "stored value"), [
            (label["name"], label["value"]) for label in info.labels])]
    if info.postprocessing:
        parts.append("Labels are cleaned: " + "; ".join(
            f"{step.replace('_', ' ')} of {', '.join(names)}" for step, names in info.postprocessing.items()) + ".")
    for title, content in (("Scores", info.scores), ("Training", info.training)):
        if content:
            parts += [f"## {title}", _table(("", ""), list(content.items()))]
    if info.citation:
        parts += ["## Citation", info.citation]
    parts.append("For research. Not a medical device; check every result.")
    return "\n\n".join(parts) + "\n"


def _of_classification(info: ModelInfo) -> list[tuple[str, str]]:
    calibration = info.calibration
    told = ("not calibrated" if not calibration.get("cases") else
            f"calibrated on {calibration['cases']} {calibration.get('on', 'validation cases')} (temperature "
            f"{calibration['temperature']:.3g})")
    facts = [("Classes", "several may apply to an image, or none" if info.multi_label else "exactly one an image"),
             ("Probabilities", told)]
    return facts + ([("Slices of volumes", info.slice_pooling)] if info.spatial_dims == 2 else [])


def _table(header: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "| --- | --- |"]
    return "\n".join(lines + [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.replace("|", "\\|").replace("\n", " ")


def _quoted(name: str) -> str:
    return f'"{name}"' if " " in name else name
