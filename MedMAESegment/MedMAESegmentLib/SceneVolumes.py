"""The volumes of the scene that are images, not results."""

from __future__ import annotations

import slicer

_CLASSES = ("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")  # and not those derived of them, such as label maps


def imageVolumes() -> list[slicer.vtkMRMLVolumeNode]:
    """The grey and colour volumes that a model of one channel can segment, in the order in which they were loaded."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")  # the other class is derived of it
    return [node for node in nodes if node.GetClassName() in _CLASSES and _isImage(node)]


def _isImage(node: slicer.vtkMRMLVolumeNode) -> bool:
    image = node.GetImageData()
    if node.GetHideFromEditors() or node.GetAttribute("MedMAE.content") is not None or image is None:
        return False
    return image.GetNumberOfPoints() > 1 and image.GetNumberOfScalarComponents() in (1, 3, 4)
