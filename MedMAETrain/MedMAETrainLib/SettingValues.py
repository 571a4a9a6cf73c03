"""What people write into the table of settings, as the engine takes it, and what the engine would refuse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.config import from_json
from medmae.errors import BadInput
from medmae.finetuning.config import FinetuneConfig
from medmae.networks.presets import preset as presetOf
from medmae.pretraining.config import PretrainConfig
from MedMAETrainLib.Recommendation import Purpose
from MedMAETrainLib.TrainRequest import PRETRAINING

_LISTS = {"spacing_mm": float, "input_size": int}
_LARGEST = 10**7  # more is a slip of the finger
_CODE = re.compile(r"[A-Z]{2,8}")  # of modalities, as DICOM has them


def readValue(key: str, text: str) -> Any:
    """The value of a setting that somebody has written.

    :raises ValueError: it cannot be one; says what can.
    """
    text = text.strip()
    if key == "modality":
        if not _CODE.fullmatch(text.upper()):
            raise ValueError(_("{text} is no modality. Write its DICOM code: CT, MR, PT (PET), US, DX (X-ray)…").format(
                text=text))
        return text.upper()
    kind = _LISTS.get(key, int)
    words = [word for word in re.split(r"\s*[x×;]\s*|,\s+|\s+", text) if word]
    try:
        values = [kind(word.replace(",", ".") if kind is float else word) for word in words]
    except ValueError:
        values = []
    if not all(abs(value) <= _LARGEST for value in values):  # also what is no number at all
        raise ValueError(_("{text} is too large.").format(text=text))
    if key in _LISTS:
        if len(values) not in (2, 3):
            raise ValueError(_("{text} is no size. Write numbers with x between, such as {example}.").format(
                text=text, example="1 x 1 x 3" if kind is float else "96 x 96 x 96"))
        return values
    if len(values) != 1:
        raise ValueError(_("{text} is no whole number.").format(text=text))
    return values[0]


def showValue(value: Any) -> str:
    """A value for people, as `readValue` takes it."""
    return " x ".join(f"{part:g}" for part in value) if isinstance(value, list) else str(value)


def refuseSettings(purpose: Purpose, settings: Mapping[str, Any]) -> None:
    """Let the engine look at settings; needs no torch.

    :raises medmae.errors.BadInput: it would refuse a run with them; says why.
    """
    dims = presetOf(purpose.method, purpose.preset).spatial_dims
    for key in _LISTS:
        count = len(settings[key]) if settings.get(key) is not None else dims
        if count != dims:
            raise BadInput(_("{values} has {count} numbers, but this network needs {dims}.").format(
                values=showValue(settings[key]), count=count, dims=dims))
    if purpose.task == PRETRAINING:
        from_json(PretrainConfig, {"method": purpose.method, "preset": purpose.preset, **settings}, _("value"))
    else:  # the modality is a fact of the data, not of the configuration
        config = {key: value for key, value in settings.items() if key != "modality"}
        from_json(FinetuneConfig, {"method": purpose.method, "preset": purpose.preset, **config}, _("value"))
