"""What can be chosen when a model is applied. Reading these needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medmae.inference.memory import parse_memory
from medmae.models.info import is_pooling

Precision = Literal["auto", "fp32", "bf16", "fp16"]
LabelFormat = Literal["nii.gz", "nrrd", "seg.nrrd", "dicom-seg"]
Postprocess = Literal["model", "none"]


@dataclass(frozen=True)
class SegmentConfig:
    """How images are segmented.

    device: auto, cpu, cuda or cuda:N; precision: auto is bf16 where the device computes it in hardware, fp32
    elsewhere; overlap: part of the window that neighbours share; batch: windows a forward pass (None: what suits the
    device); format: of the label maps; frame: of 4-D images, from 0.

    mirror: mean over the images mirrored along the axes of the training, twice the work for each; skip_empty: leave
    out windows of nothing but air or padding; memory: the most that the process may take, as "4GB"; roi: only what lies
    in this box of patient coordinates in mm, (R0, R1, A0, A1, S0, S1); probabilities: also write those of each label;
    uncertainty: also write where the model is unsure; postprocess: "model" does what the model asks for, "none" not;
    largest_component, fill_holes: for every label, whatever the model asks for.
    """

    device: str = "auto"
    precision: Precision = "auto"
    overlap: float = 0.5
    batch: int | None = None
    format: LabelFormat = "nii.gz"
    frame: int | None = None
    mirror: bool = False
    skip_empty: bool = True
    memory: str | None = None
    roi: tuple[float, ...] | None = None
    probabilities: bool = False
    uncertainty: bool = False
    postprocess: Postprocess = "model"
    largest_component: bool = False
    fill_holes: bool = False

    def __post_init__(self) -> None:
        _check(self.overlap, self.batch, self.memory)
        _check_roi(self.roi)


@dataclass(frozen=True)
class ClassifyConfig:
    """How images are classified; the fields are those of `SegmentConfig`.

    pooling: how a 2-D model makes one answer of the slices of a volume, "mean", "max" or "topN%"; None: as the model
    was trained.
    """

    device: str = "auto"
    precision: Precision = "auto"
    batch: int | None = None
    frame: int | None = None
    pooling: str | None = None

    def __post_init__(self) -> None:
        _check(0.0, self.batch)
        check_pooling(self.pooling)


@dataclass(frozen=True)
class EvaluateConfig:
    """How a model is evaluated; the fields are those of `SegmentConfig` and `ClassifyConfig`."""

    device: str = "auto"
    precision: Precision = "auto"
    overlap: float = 0.5
    batch: int | None = None
    format: LabelFormat = "nii.gz"
    pooling: str | None = None
    mirror: bool = False
    skip_empty: bool = True
    memory: str | None = None
    postprocess: Postprocess = "model"

    def __post_init__(self) -> None:
        _check(self.overlap, self.batch, self.memory)
        check_pooling(self.pooling)


def check_pooling(pooling: str | None) -> None:
    """Refuse an unknown way to pool slices.

    Raises:
        ValueError: it is none.
    """
    if pooling is not None and not is_pooling(pooling):
        raise ValueError(f"pooling must be mean, max or topN% (N from 1 to 100, for instance top25%), not {pooling}")


def _check(overlap: float, batch: int | None, memory: str | None = None) -> None:
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap} must be at least 0 and below 1")
    if batch is not None and batch < 1:
        raise ValueError(f"batch {batch} must be at least 1")
    if memory is not None:
        parse_memory(memory)


def _check_roi(roi: tuple[float, ...] | None) -> None:
    if roi is None:
        return
    if len(roi) != 6 or not all(math.isfinite(side) for side in roi):
        raise ValueError(f"roi must be six numbers in mm (R0, R1, A0, A1, S0, S1), not {roi}")
    if any(high <= low for low, high in zip(roi[::2], roi[1::2], strict=True)):
        raise ValueError(f"roi {roi} is empty: each second number must be above the one before it")
