"""What can be chosen when a model is applied. Reading these needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
LabelFormat = Literal["nii.gz", "nrrd", "seg.nrrd"]


@dataclass(frozen=True)
class SegmentConfig:
    """How images are segmented.

    device: auto, cpu, cuda or cuda:N; precision: auto is bf16 where the device computes it in hardware, fp32
    elsewhere; overlap: part of the window that neighbours share; batch: windows a forward pass (None: what suits the
    device); format: of the label maps; frame: of 4-D images, from 0.
    """

    device: str = "auto"
    precision: Precision = "auto"
    overlap: float = 0.5
    batch: int | None = None
    format: LabelFormat = "nii.gz"
    frame: int | None = None

    def __post_init__(self) -> None:
        _check(self.overlap, self.batch)


@dataclass(frozen=True)
class ClassifyConfig:
    """How images are classified; the fields are those of `SegmentConfig`."""

    device: str = "auto"
    precision: Precision = "auto"
    batch: int | None = None
    frame: int | None = None

    def __post_init__(self) -> None:
        _check(0.0, self.batch)


@dataclass(frozen=True)
class EvaluateConfig:
    """How a model is evaluated; the fields are those of `SegmentConfig`."""

    device: str = "auto"
    precision: Precision = "auto"
    overlap: float = 0.5
    batch: int | None = None
    format: LabelFormat = "nii.gz"

    def __post_init__(self) -> None:
        _check(self.overlap, self.batch)


def _check(overlap: float, batch: int | None) -> None:
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} must be at least 0 and below 1")
    if batch is not None and batch < 1:
        raise ValueError(f"batch {batch} must be at least 1")
