"""On which grid a 3-D network sees volumes: which way their axes run, and how far apart their voxels lie.

Networks for thin volumes (few, thick slices) have patches that are flat along k, so slices must run along k whichever
way they were acquired. Networks with cubic patches see every volume in the same orientation, as always.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medmae.datasets.preprocessing import ORIENTATION
from medmae.networks.presets import GlMaePreset, Preset

log = logging.getLogger(__name__)
Triple = tuple[float, float, float]
# Letters say where i, j and k increase; the slices' axis of RAS volumes (k, j, i) to the orientation with it as k
_ORIENTATION_OF_SLICES = {0: "RAS", 1: "RSA", 2: "ASR"}
_NAME_OF_SLICES = {0: "axial", 1: "coronal", 2: "sagittal"}
_LINE_OF_LETTER = {"R": 2, "L": 2, "A": 1, "P": 1, "S": 0, "I": 0}  # the axis (k, j, i) of a RAS volume
THICKER = 1.5  # slices are thick when that much thicker than voxels are wide
FEWER = 0.5  # ... or when there are that many fewer than voxels along the next shorter side


@dataclass
class VolumeGrids:
    """Shapes and spacings (k, j, i) of volumes, all towards RAS."""

    spacings_mm: list[Triple] = field(default_factory=list)
    shapes: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def median_spacing_mm(self) -> Triple | None:
        """The median over the volumes, to a tenth of a micrometre; None without volumes."""
        if not self.spacings_mm:
            return None
        k, j, i = np.round(np.median(np.array(self.spacings_mm), axis=0), 4)
        return float(k), float(j), float(i)


def is_thin(preset: Preset) -> bool:
    """Whether the patches of a preset are flat, for volumes of few slices."""
    return isinstance(preset, GlMaePreset) and not isinstance(preset.patch, int) and len(set(preset.patch)) > 1


def slice_axis(shape: Sequence[int], spacing_mm: Sequence[float]) -> int | None:
    """Along which axis a volume has its slices: the one of the thickest, else of the fewest; None for neither."""
    thickness, count = sorted(spacing_mm), sorted(shape)
    if thickness[2] >= THICKER * thickness[1]:
        return int(np.argmax(spacing_mm))
    return int(np.argmin(shape)) if count[0] <= FEWER * count[1] else None


def network_orientation(preset: Preset, shapes: Sequence[Sequence[int]],
                        spacings_mm: Sequence[Sequence[float]]) -> str:
    """The orientation in which a network of `preset` sees volumes of `shapes` and `spacings_mm` (k, j, i) towards RAS.

    For thin presets slices run along k, as most volumes have them; the others will be cut across their slices, which is
    said in the log.
    """
    usual = ORIENTATION[preset.spatial_dims]
    votes = _slice_axes(shapes, spacings_mm)
    if not is_thin(preset) or not votes:
        return usual
    chosen, count = votes.most_common(1)[0]
    if count < votes.total():
        log.warning("%d of %d volumes have %s slices, the others run another way; a network for thin volumes suits "
                    "one of them only. Train one for each, or use a preset with cubic patches.", count, votes.total(),
                    _NAME_OF_SLICES[chosen])
    log.info("slices are %s: the network sees volumes in the orientation %s", _NAME_OF_SLICES[chosen],
             _ORIENTATION_OF_SLICES[chosen])
    return _ORIENTATION_OF_SLICES[chosen]


def warn_of_other_slices(preset: Preset, orientation: str, shapes: Sequence[Sequence[int]],
                         spacings_mm: Sequence[Sequence[float]]) -> None:
    """Say in the log where a network of a thin preset that sees `orientation` cuts volumes across their slices.

    Args:
        preset, shapes, spacings_mm: see `network_orientation`.
        orientation: that of the encoder, which stays.
    """
    votes = _slice_axes(shapes, spacings_mm)
    across = votes.total() - votes[_LINE_OF_LETTER[orientation[2]]]
    if is_thin(preset) and across:
        log.warning("%d of %d volumes have their slices another way than those that the encoder was pretrained on "
                    "(%s): its flat patches cut across them. Pretrain an encoder on such volumes, or use a preset with "
                    "cubic patches.", across, votes.total(), _NAME_OF_SLICES[_LINE_OF_LETTER[orientation[2]]])


def _slice_axes(shapes: Sequence[Sequence[int]], spacings_mm: Sequence[Sequence[float]]) -> Counter[int]:
    """How many volumes have their slices along each axis (k, j, i); those without slices do not count."""
    axes = (slice_axis(shape, spacing) for shape, spacing in zip(shapes, spacings_mm, strict=True))
    return Counter(axis for axis in axes if axis is not None)


def in_orientation(values: Triple, orientation: str) -> Triple:
    """Values (k, j, i) along the axes of RAS volumes, in the order of volumes of another orientation."""
    k, j, i = (values[_LINE_OF_LETTER[letter]] for letter in reversed(orientation))
    return k, j, i
