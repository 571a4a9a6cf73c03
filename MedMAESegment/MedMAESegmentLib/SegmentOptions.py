"""How a volume is segmented, as scripts and panels say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medmae.inference.config import SegmentConfig


@dataclass(frozen=True)
class SegmentOptions:
    """The choices that the engine understands; None: its default.

    device - "auto", "cpu", "cuda:0".
    precision - "fp32", "bf16" or "fp16".
    overlap - Of neighbouring windows, 0 to below 1.
    mirror - The mean over the image mirrored along the axes of the model's training: slower, sometimes better.
    largestComponent - Keep the largest part of each label only.
    uncertainty - Also make the map of where the model is unsure.
    """

    device: str = "auto"
    precision: str | None = None
    overlap: float | None = None
    mirror: bool = False
    largestComponent: bool = False
    uncertainty: bool = False

    def settings(self, box: Sequence[float] | None = None) -> dict[str, Any]:
        """The engine's settings; `box` is the region of interest.

        Raises:
            ValueError: a choice makes no sense.
        """
        given = {"device": self.device, "precision": self.precision, "overlap": self.overlap, "mirror": self.mirror,
                 "largest_component": self.largestComponent, "uncertainty": self.uncertainty,
                 "roi": list(box) if box is not None else None}
        settings = {name: value for name, value in given.items() if value not in (None, False)}
        SegmentConfig(**settings)
        return settings

    def told(self) -> dict[str, Any]:
        """The choices by name, for the record."""
        return asdict(self)
