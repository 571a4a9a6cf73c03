"""What is asked of a result when it is taken into the scene."""

from __future__ import annotations

from dataclasses import dataclass

from MedMAESegmentLib.Translation import tr as _


@dataclass(frozen=True)
class ImportOptions:
    """How a result is put into a segmentation.

    replaceExisting - Segments of the same name that are there already are replaced; otherwise they are kept, and the
        new ones get a number behind their name.
    smoothing - Make closed surfaces, smoothed by this factor from 0 (not at all) to 1; None: no surfaces.
    """

    replaceExisting: bool = False
    smoothing: float | None = None

    def __post_init__(self) -> None:
        if self.smoothing is not None and not 0 <= self.smoothing <= 1:
            text = _("A smoothing of {smoothing} is not possible. Give a number from 0 to 1, or None.")
            raise ValueError(text.format(smoothing=self.smoothing))
