"""The part of the panel with what can be asked for beside the segments, and what each of it costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from slicer.i18n import tr as _

from MedMAESegmentLib.Panel.Choices import Choices


class OptionsSection:
    """Shows the options that the model has, and the costs of those that are on.

    Needs the widgets segmentationOptions, smoothingFactorSpinBox and costsLabel.
    """

    def __init__(self, ui: SimpleNamespace) -> None:
        self._ui = ui

    def update(self, choices: Choices, note: str = "") -> None:
        """Show what is chosen; `note` is said first."""
        lines = [note, *_costs(choices)]
        self._ui.segmentationOptions.visible = not choices.isClassification
        self._ui.smoothingFactorSpinBox.enabled = "smoothing" in choices.options
        self._ui.costsLabel.text = "\n".join(line for line in lines if line)
        self._ui.costsLabel.visible = bool(self._ui.costsLabel.text)


def _mirroringCost(info: Any) -> str:
    axes = 3 if info is None else info.spatial_dims if info.flip_axes is None else len(info.flip_axes)
    if axes == 0:
        return _("Mirroring: changes nothing, the model has not learned from mirrored images.")
    return _("Mirroring: about {times} times as long.").format(times=2 ** axes)


def _costs(choices: Choices) -> list[str]:
    if choices.isClassification:
        return [_("Classification models are computed on this computer.")] if choices.target is not None else []
    lines = []
    if choices.target is not None:
        lines.append(_("Volumes are copied to {target}, and the results back.").format(target=choices.target))
    if choices.options.get("mirror"):
        lines.append(_mirroringCost(choices.info))
    if choices.options.get("uncertainty"):
        lines.append(_("Uncertainty volume: somewhat longer, and more memory."))
    if choices.options.get("largestComponent"):
        lines.append(_("Largest component: wrong for structures of several parts."))
    if "smoothing" in choices.options:
        lines.append(_("Smooth surfaces: some seconds where segments are large."))
    return lines
