"""The map of where a model is unsure, as a volume beside the one that was segmented."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import slicer

from MedMAESegmentLib.SegmentationImport import placeBeside
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import ijkToRas

_NIFTI_HEADER_BYTES, _OFFSET_AT = 352, 108


def readMap(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The voxels (k, j, i), 0 to 255, of a map that the engine has written; needs neither the scene nor SimpleITK.

    Raises:
        RuntimeError: the file has another size than the image.
    """
    with gzip.open(path, "rb") as file:
        content = file.read()
    offset = int(np.frombuffer(content, "<f4", 1, _OFFSET_AT)[0]) if len(content) >= _NIFTI_HEADER_BYTES else 0
    voxels = np.frombuffer(content, np.uint8, offset=offset)
    if voxels.size != np.prod(shape):
        raise RuntimeError(_("The map of uncertainty has another size than the image; it was not loaded."))
    return voxels.reshape(shape)


def addUncertaintyVolume(voxels: np.ndarray,
                         volumeNode: slicer.vtkMRMLVolumeNode) -> slicer.vtkMRMLScalarVolumeNode:
    """Add the map to the scene, on the grid and under the transform of the volume.

    255 means that all classes are as likely, 0 that one is certain.
    """
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} uncertainty")
    node = slicer.util.addVolumeFromArray(voxels, ijkToRas(volumeNode), name)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    node.SetAttribute("MedMAE.content", "uncertainty")
    display = node.GetDisplayNode()
    if display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(0, 255)
    placeBeside(node, volumeNode)
    return node
