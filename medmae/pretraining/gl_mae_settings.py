"""What can be set of GL-MAE: views, masks, losses and teacher, each with the default that docs/methods.md discusses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Range = tuple[float, float]
Voxels = tuple[int, int, int]


@dataclass(frozen=True)
class GlMaeSettings:
    """Views, masks and loss weights; sizes are voxels (k, j, i), None takes the preset's.

    Views: `global_views` (p) and `local_views` (q) of `global_size` and `local_size` per volume. With `crop` "resized"
    a view covers its size times a random scale of `global_scale` or `local_scale` (None: of `view_scale`); with "plain"
    it is cut as it is stored. `view_spacing_mm` (k, j, i) is the voxel size of views, whatever the spacing of each
    volume; None cuts them in voxels of the corpus. One block of `block_factor` times the largest view is read of each
    volume. Intensities are multiplied by 1 ± `contrast` and shifted by ± `brightness`, drawn per view.

    Masks: `mask_ratio` of the tokens of every view is hidden from the student.

    Losses: a consistency loss with both weights 0 needs no teacher and costs nothing. `consistency` is how student and
    teacher embeddings are compared (medmae/pretraining/consistency.py); the temperatures, and the number of
    `prototypes`, are the cross-entropy's.
    """

    global_views: int | None = None
    local_views: int | None = None
    global_size: Voxels | None = None
    local_size: Voxels | None = None
    crop: Literal["resized", "plain"] = "resized"
    view_scale: Range = (0.75, 1.33)
    global_scale: Range | None = None
    local_scale: Range | None = None
    view_spacing_mm: tuple[float, float, float] | None = None
    block_factor: float = 1.25
    flip: bool = True
    contrast: float = 0.1
    brightness: float = 0.1
    mask_ratio: float = 0.75
    normalise_target: bool = False
    weight_global: float = 1.0
    weight_local: float = 1.0
    weight_global_to_global: float = 1.0
    weight_global_to_local: float = 1.0
    consistency: Literal["cross_entropy", "negative_cosine"] = "cross_entropy"
    momentum: float = 0.996
    student_temperature: float = 1.0
    teacher_temperature: float = 0.5
    projector_hidden: int = 2048
    projector_bottleneck: int = 256
    prototypes: int = 4096

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        for name in ("view_scale", "global_scale", "local_scale"):
            _require_range(name, getattr(self, name))
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, not {self.momentum}")
        if any(count is not None and count < 1 for count in (self.global_views, self.local_views)):
            raise ValueError("global_views and local_views must be at least 1")
        for name in ("global_size", "local_size", "view_spacing_mm"):
            _require_all_positive(name, getattr(self, name))
        for name in ("student_temperature", "teacher_temperature"):
            _require_all_positive(name, [getattr(self, name)])
        if not 1 <= self.block_factor <= 4:
            raise ValueError(f"block_factor must lie between 1 and 4, not {self.block_factor}")
        if not (0 <= self.contrast < 1 and self.brightness >= 0):
            raise ValueError("contrast must be at least 0 and below 1, brightness at least 0")
        weights = (self.weight_global, self.weight_local, self.weight_global_to_global, self.weight_global_to_local)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError("the weights of the losses must not be negative, and at least one must be above 0")

    def scale_of(self, kind: Literal["global", "local"]) -> Range:
        """The range of scales of global or local views; (1, 1) for plain crops."""
        if self.crop == "plain":
            return (1.0, 1.0)
        return (self.global_scale if kind == "global" else self.local_scale) or self.view_scale

    @property
    def has_teacher(self) -> bool:
        """Whether any consistency loss counts."""
        return self.weight_global_to_global > 0 or self.weight_global_to_local > 0

    @property
    def has_local_views(self) -> bool:
        """Whether any loss of local views counts."""
        return self.weight_local > 0 or self.weight_global_to_local > 0


def _require_range(name: str, values: Range | None) -> None:
    if values is not None and not 0 < values[0] <= values[1]:
        raise ValueError(f"{name} must be two rising positive numbers, not {values}")


def _require_all_positive(name: str, values: Sequence[float] | None) -> None:
    if values is not None and not min(values) > 0:
        raise ValueError(f"{name} must be positive, not {values}")
