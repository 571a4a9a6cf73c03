"""Take a finished .seg.nrrd into the scene, exactly on the voxels of the volume that was segmented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.VolumeExport import ijkToRas

_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def loadSegmentation(path: Path, volumeNode: slicer.vtkMRMLVolumeNode, geometry: np.ndarray,
                     segmentationNode: slicer.vtkMRMLSegmentationNode | None = None) -> slicer.vtkMRMLSegmentationNode:
    """Load the result of segmenting `volumeNode`, with names, colours and terminology.

    `geometry` (4x4, (i, j, k, 1) to RAS mm) is the one that the volume was exported with; the voxels are put back
    under the volume's own geometry and its parent transform. Without `segmentationNode` a new node is made; in one
    that holds segments, those of the same name are replaced and the others are kept.

    Raises:
        RuntimeError: the file cannot be read, or is not on the volume's grid.
    """
    if segmentationNode is None or segmentationNode.GetSegmentation().GetNumberOfSegments() == 0:
        isNew = segmentationNode is None
        segmentationNode = segmentationNode or slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} segmentation"))
        try:
            _read(path, segmentationNode, geometry, volumeNode)
        except RuntimeError:
            if isNew:
                _remove(segmentationNode)
            raise
    else:
        loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "MedMAE result")
        try:
            _read(path, loaded, geometry, volumeNode)
            _copySegments(loaded.GetSegmentation(), segmentationNode.GetSegmentation())
        finally:
            _remove(loaded)
    segmentationNode.CreateDefaultDisplayNodes()
    attachToVolume(segmentationNode, volumeNode)
    return segmentationNode


def canReceive(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Whether a segmentation may get segments of the volume: not if that would move the segments that it has."""
    return (segmentationNode.GetSegmentation().GetNumberOfSegments() == 0
            or segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID())


def attachToVolume(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Give the segmentation the volume's geometry as reference, its transform, and a place under it in the tree."""
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    segmentationNode.SetNodeReferenceID(
        slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if volumeItem:
        item = hierarchy.GetItemByDataNode(segmentationNode)
        if item:
            hierarchy.SetItemParent(item, volumeItem)
        else:
            hierarchy.CreateItem(volumeItem, segmentationNode)


def _read(path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode, geometry: np.ndarray,
          volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    storage = slicer.vtkMRMLSegmentationStorageNode()  # never in the scene: the node must not point to this file
    storage.SetFileName(str(path))
    if not storage.ReadData(segmentationNode, True):
        raise RuntimeError("The segmentation was computed but could not be loaded.")
    _moveOntoVoxels(segmentationNode.GetSegmentation(), geometry, ijkToRas(volumeNode))


def _remove(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    if segmentationNode.GetDisplayNode() is not None:
        slicer.mrmlScene.RemoveNode(segmentationNode.GetDisplayNode())
    slicer.mrmlScene.RemoveNode(segmentationNode)


def _moveOntoVoxels(segmentation: slicer.vtkSegmentation, source: np.ndarray, target: np.ndarray) -> None:
    """Replace the geometry of every labelmap, which lies on the grid `source`, by the grid `target`."""
    moved: set[str] = set()
    for index in range(segmentation.GetNumberOfSegments()):
        labelmap = segmentation.GetNthSegment(index).GetRepresentation(_LABELMAP)
        if labelmap is None or labelmap.GetAddressAsString("") in moved:
            continue
        moved.add(labelmap.GetAddressAsString(""))
        matrix = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        offset = np.linalg.inv(source) @ slicer.util.arrayFromVTKMatrix(matrix)
        shifted = np.eye(4)
        shifted[:3, 3] = np.round(offset[:3, 3])
        if not np.allclose(offset, shifted, atol=1e-3):
            raise RuntimeError("The segmentation was computed on another grid than the volume's; it was not loaded.")
        labelmap.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(target @ shifted))


def _copySegments(source: slicer.vtkSegmentation, target: slicer.vtkSegmentation) -> None:
    """Copy all segments over those of the same name."""
    if target.GetSourceRepresentationName() != _LABELMAP:
        target.CreateRepresentation(_LABELMAP)  # before, or the segments that are there would lose their shapes
        target.SetSourceRepresentationName(_LABELMAP)
    for index in range(source.GetNumberOfSegments()):
        old = target.GetSegmentIdBySegmentName(source.GetNthSegment(index).GetName())
        if old:
            target.RemoveSegment(old)
        target.CopySegmentFromSegmentation(source, source.GetNthSegmentID(index))
    target.CollapseBinaryLabelmaps(False)
