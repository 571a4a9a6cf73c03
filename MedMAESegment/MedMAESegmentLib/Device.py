"""The devices that the panels offer; needs the Slicer application (for its translations)."""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _


class Device(Enum):
    """Where to compute; the values are what the engine understands."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "cuda:0"

    def label(self) -> str:
        """The choice as the panel names it."""
        labels = {Device.AUTO: _("Automatic"), Device.CPU: _("Processor (CPU)"), Device.GPU: _("Graphics card (GPU)")}
        return labels[self]
