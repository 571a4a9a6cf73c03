"""Turning the checkpoints of other systems into models of MedMAE. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medmae.errors import BadInput
from medmae.models.gl_mae_importing import import_gl_mae
from medmae.models.import_report import TRANSFORMER_OPTIONS, ImportOptions, ImportReport
from medmae.models.monai_importing import import_monai
from medmae.models.vis_mae_importing import import_vis_mae

Importer = Callable[[str | Path, Path, ImportOptions], ImportReport]

FORMATS: dict[str, Importer] = {"vis-mae": import_vis_mae, "gl-mae": import_gl_mae, "monai": import_monai}

__all__ = ["FORMATS", "ImportOptions", "ImportReport", "import_model"]


def import_model(format_name: str, checkpoint: str | Path, out: str | Path,
                 options: ImportOptions | None = None) -> ImportReport:
    """Import a checkpoint of another system as a model folder.

    Args:
        format_name: one of `FORMATS`.
        checkpoint: the file.
        out: the model folder to write; must be absent or empty.
        options: what the checkpoint does not say.

    Raises:
        BadInput: unknown format, unusable option, unreadable file, or one that is not the whole of a known network.
    """
    if format_name not in FORMATS:
        raise BadInput(f"Checkpoints of the format {format_name!r} cannot be imported. Known: {', '.join(FORMATS)}.")
    out, options = Path(out), options or ImportOptions()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"The output {out} exists and is not an empty folder. Choose another --out.")
    if options.name is not None and not options.name.strip():
        raise BadInput("The name is empty. Give the model a name, or leave it to --out.")
    if format_name == "vis-mae":
        _refuse_transformer_options(options)
    return FORMATS[format_name](checkpoint, out, options)


def _refuse_transformer_options(options: ImportOptions) -> None:
    given = [name for name in TRANSFORMER_OPTIONS if getattr(options, name) is not None]
    given += ["positions"] * (options.positions != "table")
    if given:
        raise BadInput(f"--{given[0].replace('_', '-')} is for vision transformers (gl-mae, monai), but the format is "
                       "vis-mae. Leave it out.")
