"""What a new model can start from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from MedMAETrainLib.RunEntry import RunEntry

_WITHOUT_ENCODER = ("plain_unet", "dyn_unet", "ensemble")  # architectures; see medmae.finetuning.planning


@dataclass(frozen=True)
class StartingPoint:
    """A model whose encoder can be trained on.

    reference - What `finetune` takes as its encoder: a name in the list of models, or the path of a run.
    label - For people: its name, and what it is for.
    kind - "encoder" (pretrained, or imported), "model" (finetuned) or "run" (its model is not in the list).
    method, preset - Its network.
    modality - DICOM code; "": unknown.
    spatialDims - 2 or 3.
    """

    reference: str
    label: str
    kind: str
    method: str
    preset: str
    modality: str
    spatialDims: int


def startingPoints(entries: Iterable[RunEntry]) -> list[StartingPoint]:
    """The installed encoders, the installed models that have an encoder, and the models of `entries` that are not
    installed."""
    from medmae.errors import BadInput
    from medmae.models import list_models, load_info

    models = [(name, info) for name, info in list_models() if info.architecture["name"] not in _WITHOUT_ENCODER]
    found = [_pointOf(name, name, "encoder", info) for name, info in models if info.task == "encoder"]
    found += [_pointOf(name, name, "model", info) for name, info in models if info.task != "encoder"]
    installed = {name for name, _info in models}
    for entry in entries:
        if entry.model in installed or not (entry.folder / "model" / "model.json").is_file():
            continue
        try:
            info = load_info(entry.folder)
        except BadInput:  # the list of runs tells what is wrong with it
            continue
        if info.architecture["name"] not in _WITHOUT_ENCODER:
            found.append(_pointOf(str(entry.folder), _("Run {name}").format(name=entry.name), "run", info))
    return found


def _pointOf(reference: str, name: str, kind: str, info: Any) -> StartingPoint:
    facts = [info.modality, f"{info.spatial_dims}-D", f"{info.method} {info.preset}"]
    label = f"{name} ({', '.join(fact for fact in facts if fact)})"
    return StartingPoint(reference, label, kind, info.method, info.preset, info.modality,
                         info.spatial_dims)
