"""Turning finished models into what other programs run. Needs torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.models import monai_bundle_files as bundle
from medmae.models.info import ModelInfo
from medmae.models.loading import fitting_state
from medmae.models.model_files import CARD, INFO, PREVIEW, WEIGHTS, ModelFiles
from medmae.models.registry import resolve_model
from medmae.models.replacing import new_folder


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, the format, the model, and the files relative to the folder."""

    folder: Path
    format_name: str
    info: ModelInfo
    files: tuple[str, ...]


def export_model(format_name: str, model: str | Path, out: str | Path) -> ExportReport:
    """Export a finished model.

    Args:
        format_name: one of `EXPORTS`.
        model: as for `resolve_model`.
        out: the folder to write; must be absent or empty.

    Raises:
        BadInput: unknown format, no finished or a damaged model, one that has no results to give, or a folder in use.
    """
    if format_name not in EXPORTS:
        raise BadInput(f"Models cannot be exported as {format_name!r}. Known: {', '.join(EXPORTS)}.")
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"The output {out} exists and is not an empty folder. Choose another --out.")
    files = ModelFiles(resolve_model(model))
    info = files.info()
    EXPORTS[format_name](files, info, out)
    return ExportReport(out, format_name, info, tuple(sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())))


def export_monai_bundle(files: ModelFiles, info: ModelInfo, out: Path) -> None:
    """Write a MONAI bundle around a segmentation or classification model.

    The architecture becomes a part of the bundle's config, in which MONAI runs what certain texts say; an architecture
    that its weights fit has none of them.

    Raises:
        BadInput: the model is an encoder, or its weights are damaged or do not fit its architecture.
    """
    if info.task == "encoder":
        raise BadInput(f"The model {info.name} is an encoder: a bundle is run to labels, and it has none. Finetune it "
                       "(medmae finetune --encoder) and export that model.")
    weights = files.verified_weights(info)
    fitting_state(files.path)
    with new_folder(out) as folder:
        for name in ("configs", "docs", "models"):
            (folder / name).mkdir()
        for name in (INFO, CARD, PREVIEW):
            if files.has(name):
                (folder / "models" / name).write_bytes(files.read(name))
        if isinstance(weights, Path):
            shutil.copyfile(weights, folder / "models" / WEIGHTS)
        else:
            (folder / "models" / WEIGHTS).write_bytes(weights)
        write_json(folder / "configs" / "metadata.json", bundle.metadata(info))
        write_json(folder / "configs" / "inference.json", bundle.inference_config(info))
        write_text(folder / "configs" / "logging.conf", bundle.LOGGING)
        card = files.read(CARD).decode("utf-8", "replace") if files.has(CARD) else ""
        write_text(folder / "docs" / "README.md", bundle.readme(info, card))
        write_text(folder / "LICENSE", bundle.licence_text(info))


EXPORTS: dict[str, Callable[[ModelFiles, ModelInfo, Path], None]] = {"monai-bundle": export_monai_bundle}
