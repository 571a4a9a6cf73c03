"""What can be chosen when cases are ranked. Reading this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medmae.active_learning.strategies import strategy_names
from medmae.inference.config import LabelFormat, Precision, SegmentConfig

Mirror = Literal["trained", "all", "none"]
DEFAULT_STRATEGY = "entropy"


@dataclass(frozen=True)
class RankConfig:
    """How cases are ranked; device, precision, overlap, batch, frame, skip_empty and memory are as in `SegmentConfig`.

    strategy: what makes a case useful (`strategy_names`); seed: of what is random in it; mirror: along which axes
    images are mirrored ("trained": those along which the model's training did so, "all", "none"); cases: only that
    many, the most useful ones, are told (None: all); labels: also write the predicted label map of each case; format:
    of these.
    """

    strategy: str = DEFAULT_STRATEGY
    seed: int = 0
    mirror: Mirror = "trained"
    cases: int | None = None
    labels: bool = False
    format: LabelFormat = "nii.gz"
    device: str = "auto"
    precision: Precision = "auto"
    overlap: float = 0.5
    batch: int | None = None
    frame: int | None = None
    skip_empty: bool = True
    memory: str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in strategy_names():
            raise ValueError(f"strategy must be one of {', '.join(strategy_names())}, not {self.strategy}")
        if self.cases is not None and self.cases < 1:
            raise ValueError(f"cases {self.cases} must be at least 1")
        if self.format == "dicom-seg":
            raise ValueError("format must be nii.gz, nrrd or seg.nrrd: predictions to start from are no DICOM objects")
        self.as_segment()

    def as_segment(self) -> SegmentConfig:
        """How the same images would be segmented, without mirroring: that is in the model here."""
        return SegmentConfig(device=self.device, precision=self.precision, overlap=self.overlap, batch=self.batch,
                             format=self.format, frame=self.frame, skip_empty=self.skip_empty, memory=self.memory)
