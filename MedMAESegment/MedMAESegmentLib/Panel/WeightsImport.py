"""Weights that the code of VIS-MAE, GL-MAE or MONAI has saved: what is asked before they are imported, and told after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from MedMAESegmentLib.CheckpointImport import ENDINGS, FORMATS
from MedMAESegmentLib.Panel import Dialogs as dialogs

FILES_OF_A_MODEL = ("model.json", "weights.safetensors")


def askHowToImport(path: Path, shelf: Any) -> tuple[str, str] | None:
    """Ask what a checkpoint is and what it shall be called: (one of the values of `FORMATS`, a free name).

    :param shelf: the `ModelShelf`.
    :returns: None: cancelled.
    """
    system = dialogs.chosenItem(_("Import weights"), _("Whose code has saved {name}?").format(name=path.name),
                                list(FORMATS))
    question, name = _("What shall the model be called?"), shelf.usableName(path.stem)
    while system:
        name = dialogs.enteredText(_("Import weights"), question, shelf.freeName(name))
        name = name and shelf.usableName(name)
        if not shelf.isInstalled(name):
            break
        question = _("A model named {name} is installed already. Enter another name.").format(name=name)
    return (FORMATS[system], name) if system and name else None


def loadReport(report: dict[str, Any]) -> str:
    """What became of the tensors of an imported checkpoint, and its licence."""
    lines = [_("Imported {name}: {network}, {task}.").format(
        name=report["name"], network=report["network"], task=report["task"])]
    lines += [text.format(number=len(report[key])) for key, text in (
        ("loaded", _("{number} tensors loaded")), ("missing", _("{number} missing, they are fresh")),
        ("folded", _("{number} folded into fewer channels")), ("dropped", _("{number} that are never used")),
        ("unexpected", _("{number} that are not part of this network, left out"))) if report[key]]
    return "\n".join([*lines, *report["notes"], _("Licence: {licence}").format(licence=report["licence"])])


def isCheckpoint(path: str) -> bool:
    """Whether a file is a checkpoint of other code, by its name."""
    return path.lower().endswith(ENDINGS)


def fileFilter(*endings: str) -> str:
    """The filter of a dialog for files of models, and of those with further endings."""
    patterns = " ".join(["*.zip", *FILES_OF_A_MODEL, *(f"*{ending}" for ending in endings)])
    return _("Models") + f" ({patterns});;" + _("All files") + " (*)"


def modelIn(path: str | Path) -> Path:
    """What is installed when this is chosen: for a file of a model its folder."""
    path = Path(path)
    return path.parent if path.name in FILES_OF_A_MODEL else path
