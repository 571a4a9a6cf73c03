"""Changing what a model says of itself, without touching its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from medmae.config import to_json
from medmae.errors import BadInput
from medmae.files import write_json, write_text
from medmae.models.card import model_card
from medmae.models.info import ModelInfo
from medmae.models.model_files import CARD, INFO, ModelFiles

ALL, NONE = "all", "none"


def set_postprocessing(folder: Path | str, steps: Mapping[str, Sequence[str]]) -> ModelInfo:
    """Let a segmentation model ask for its labels to be cleaned; steps that are not named stay as they are.

    Args:
        folder: of the model.
        steps: names of labels by step ("largest_component", "fill_holes"); "all" is every foreground label, "none" no.

    Returns:
        The description as it is now.

    Raises:
        BadInput: there is no model, it lies in a zip, is not for segmentation, or has no such label.
    """
    files = ModelFiles(folder)
    info = files.info()
    if not files.path.is_dir():
        raise BadInput(f"{files.path} is a zip, which is not changed in place. Install it first: medmae model install.")
    if info.task != "segmentation":
        raise BadInput(f"The model {info.name} is for {info.task}; only labels of segmentations are cleaned.")
    known = [str(label["name"]) for label in info.labels[1:]]
    wanted = {step: list(names) for step, names in info.postprocessing.items()}
    for step, names in steps.items():
        unknown = [name for name in names if name not in (*known, ALL, NONE)]
        if unknown:
            raise BadInput(f"The model {info.name} has no label {', '.join(unknown)}. It has {', '.join(known)}.")
        wanted[step] = known if ALL in names else [name for name in known if name in names]
    edited = dataclasses.replace(info, postprocessing={step: names for step, names in wanted.items() if names})
    write_text(files.path / CARD, model_card(edited, has_preview=files.has("preview.png")))
    write_json(files.path / INFO, to_json(edited))
    return edited
