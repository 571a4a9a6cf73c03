"""Results of a batch, shown in the views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from medmae.volumes.dicom_series import is_dicom_file


def showResult(logic: Any, segmentationNode: slicer.vtkMRMLSegmentationNode,
               volumeNode: slicer.vtkMRMLVolumeNode | None = None) -> None:
    """Show a segmentation as `showSegmentation` does, and make it ready for the Segment Editor."""
    showSegmentation(segmentationNode, volumeNode)
    logic.editSegmentation(segmentationNode)


def showSegmentation(segmentationNode: slicer.vtkMRMLSegmentationNode,
                     volumeNode: slicer.vtkMRMLVolumeNode | None = None) -> None:
    """Show a segmentation over its volume, and no other segmentation that has another volume."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    if volumeNode is not None:
        segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        segmentationNode.SetNodeReferenceID(role, volumeNode.GetID())
    else:
        volumeNode = segmentationNode.GetNodeReference(role)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display, reference = node.GetDisplayNode(), node.GetNodeReference(role)
        if display is not None and (node is segmentationNode or reference not in (None, volumeNode)):
            display.SetVisibility(node is segmentationNode)
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)


def loadResult(image: Path, result: Path) -> tuple[slicer.vtkMRMLVolumeNode, slicer.vtkMRMLSegmentationNode]:
    """Load an image and its segmentation into the scene; what is there already is not loaded again.

    Raises:
        RuntimeError: a file cannot be loaded.
    """
    volumeNode, segmentationNode = _loadedFrom(image, "vtkMRMLVolumeNode"), _loadedFrom(
        result, "vtkMRMLSegmentationNode")
    if volumeNode is None:
        volumeNode = slicer.util.loadVolume(str(image), {"singleFile": True}) if image.is_file() else (
            slicer.util.loadVolume(str(_firstOf(image)), {"singleFile": False, "name": image.name}))
    if segmentationNode is None:
        segmentationNode = slicer.util.loadSegmentation(str(result))
    return volumeNode, segmentationNode


def _firstOf(series: Path) -> Path:
    """The first file of a DICOM series; Slicer finds the others."""
    return next(file for file in sorted(series.iterdir()) if file.is_file() and is_dicom_file(file))


def _loadedFrom(path: Path, className: str) -> slicer.vtkMRMLNode | None:
    """The node that was loaded from a file, or from a folder's file."""
    for node in slicer.util.getNodesByClass(className):
        storage = node.GetStorageNode()
        name = storage.GetFullNameFromFileName() if storage is not None and storage.GetFileName() else None
        file = Path(name) if name else None
        if file is not None and path in (file, file.parent):
            return node
    return None
