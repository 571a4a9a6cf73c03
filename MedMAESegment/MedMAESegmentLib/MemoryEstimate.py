"""How much memory the engine will need at least, from sizes alone: nothing is computed, and torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer

from MedMAESegmentLib.VolumeExport import networkGeometry, voxels


def atLeastNeeded(volumeNode: slicer.vtkMRMLVolumeNode, info: Any, box: Sequence[float] | None = None) -> int:
    """Bytes: the engine's own plan for the volume and the model, without what only a forward pass can tell."""
    from medmae.datasets.preprocessing import Preprocessing
    from medmae.inference.plan import Work, plan
    from medmae.volumes import Geometry, Volume
    from medmae.volumes.region import region_of_box

    shape = voxels(volumeNode).shape
    geometry = Geometry((shape[0], shape[1], shape[2]), networkGeometry(volumeNode))
    nothing = np.broadcast_to(np.float32(0), (info.image_channels, *geometry.shape))
    layout = Preprocessing.of(info).layout(Volume(nothing, geometry),
                                           None if box is None else region_of_box(box, geometry))
    channels, *prepared = layout.array.shape
    work = Work(held_bytes=0, prepared=(channels, *prepared), wanted=tuple(slice(0, size) for size in prepared),
                stored=geometry.shape, target=layout.target.shape, window=tuple(info.input_size), overlap=0.5, batch=1,
                members=1, mirror=False, features=len(info.labels), classes=len(info.labels))
    return plan(work, lambda window, batch: 0).estimated_peak_bytes
