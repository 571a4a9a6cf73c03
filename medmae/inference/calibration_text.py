"""What to say about the probabilities of a classification model. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medmae.models import ModelInfo


def is_calibrated(info: ModelInfo) -> bool:
    """Whether a temperature was fitted on validation cases."""
    return bool(info.calibration.get("cases")) and "temperature" in info.calibration


def calibration_text(calibration: Mapping[str, Any]) -> str:
    """What to know about the probabilities of a model with this calibration, in a sentence."""
    note = calibration.get("note")
    if not calibration.get("cases"):
        return f"The probabilities are not calibrated{f': {note}' if note else ''}."
    return (f"The probabilities are calibrated on {calibration['cases']} {calibration.get('on', 'validation cases')}: "
            f"temperature "
            f"{calibration['temperature']:.3g}{f' ({note})' if note else ''}.")
