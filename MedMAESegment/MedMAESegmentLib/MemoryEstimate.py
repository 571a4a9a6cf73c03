"""How much memory a segmentation needs: as the worker has measured it, or at least, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels


@dataclass(frozen=True)
class MemoryEstimate:
    """What segmenting a volume will take.

    neededBytes - Main memory beyond what the worker holds already.
    freeBytes - What can be taken; None where the system does not tell.
    isMeasured - Whether a forward pass of the model was measured; otherwise more may be needed.
    windows - Parts of the volume that the network sees, at most.
    passes - Forward passes of each, by mirroring and by members.
    members - Networks that answer together.
    device - Where it would be computed; memory of a graphics card is not counted.
    passBytes - What of the memory one forward pass takes.
    """

    neededBytes: int
    freeBytes: int | None
    isMeasured: bool
    windows: int
    passes: int
    members: int
    device: str
    passBytes: int

    @property
    def fits(self) -> bool:
        """Whether as much is free as will be needed, as far as is known."""
        return self.freeBytes is None or self.neededBytes <= self.freeBytes


def estimateOf(facts: Mapping[str, Any]) -> MemoryEstimate:
    """The answer of the worker to the request "plan"."""
    return MemoryEstimate(max(0, facts["estimated_peak_bytes"] - facts["held_bytes"]), facts["free_bytes"],
                          bool(facts["measured"]), facts["windows"], facts["passes"], facts["members"],
                          facts["device"], facts["pass_bytes"])


def gridOf(volumeNode: slicer.vtkMRMLVolumeNode) -> dict[str, Any]:
    """The size and place of a volume as the request "plan" takes them."""
    array = voxels(volumeNode)
    shape = [*array.shape[:3], *([3] if array.ndim == 4 else [])]  # the worker gets colours without transparency
    return {"shape": shape, "affine": networkGeometry(volumeNode).tolist(), "dtype": array.dtype.name,
            "channels_last": array.ndim == 4, "is_2d": array.ndim == 4 and len(array) == 1,
            "name": _("The volume {volume}").format(volume=volumeNode.GetName())}


def atLeastNeeded(volumeNode: slicer.vtkMRMLVolumeNode, info: Any, box: Sequence[float] | None = None,
                  passBytes: int = 0) -> int:
    """Bytes: the engine's own plan for the volume and the model; nothing is computed, and torch is not imported.

    `passBytes` is what a forward pass takes, which only such a pass can tell; 0 where none was measured.
    """
    from medmae.datasets.preprocessing import Preprocessing
    from medmae.inference.plan import Work, plan
    from medmae.volumes import Geometry, Volume
    from medmae.volumes.region import region_of_box

    shape = voxels(volumeNode).shape
    isPicture = len(shape) == 4 and shape[0] == 1
    geometry = Geometry((shape[0], shape[1], shape[2]), networkGeometry(volumeNode))
    nothing = np.broadcast_to(np.float32(0), (info.image_channels, *geometry.shape))
    volume = Volume(nothing, geometry, is_2d=isPicture, source=_("The volume {volume}").format(
        volume=volumeNode.GetName()))
    layout = Preprocessing.of(info).layout(volume, None if box is None else region_of_box(box, geometry))
    channels, *prepared = layout.array.shape
    work = Work(held_bytes=0, prepared=(channels, *prepared), wanted=tuple(slice(0, size) for size in prepared),
                stored=geometry.shape, target=layout.target.shape, window=tuple(info.input_size), overlap=0.5, batch=1,
                members=1, mirrored_axes=0, features=len(info.labels), classes=len(info.labels))
    return plan(work, lambda window, batch: passBytes).estimated_peak_bytes
