"""What a segmentation holds already, as the engine takes it where only a region is segmented anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer


def baseLabels(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode,
               modelLabels: Sequence[Mapping[str, Any]], dtype: str) -> np.ndarray | None:
    """The segments (k, j, i) that have the names of the model's labels, with its values; None where there are none."""
    segmentation = segmentationNode.GetSegmentation()
    found = {int(label["value"]): identity for label in modelLabels[1:]
             if (identity := segmentation.GetSegmentIdBySegmentName(str(label["name"])))}
    if not found:
        return None
    shape = slicer.util.arrayFromVolume(volumeNode).shape[:3]
    labels = np.full(shape, int(modelLabels[0]["value"]), dtype)
    for value, identity in found.items():
        labels[slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, identity, volumeNode) > 0] = value
    return labels
