"""Take segments of a result into the scene, exactly on the voxels of the volume that was segmented."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.ImportOptions import ImportOptions
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import ijkToRas

LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
_SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
_SMOOTHING = slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule.GetSmoothingFactorParameterName()


def loadSegmentation(path: Path, volumeNode: slicer.vtkMRMLVolumeNode, geometry: np.ndarray,
                     segmentationNode: slicer.vtkMRMLSegmentationNode | None = None,
                     options: ImportOptions | None = None) -> slicer.vtkMRMLSegmentationNode:
    """Load a file with the result of segmenting `volumeNode`, with names, colours and terminology.

    `geometry` (4x4, (i, j, k, 1) to RAS mm) is the one that the volume was exported with; the voxels are put back
    under the volume's own geometry and its parent transform. Without `segmentationNode` a new node is made.

    Raises:
        RuntimeError: the file cannot be read, or is not on the volume's grid.
    """
    aside = slicer.vtkMRMLScene()  # of its own: no node of ours must point to this file
    loaded = aside.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(loaded, True):
        raise RuntimeError(_("The segmentation was computed but could not be loaded."))
    segmentation = loaded.GetSegmentation()
    _moveOntoVoxels(segmentation, geometry, ijkToRas(volumeNode))
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    node, _isNew = newOrGiven(volumeNode, segmentationNode)
    addSegments(segments, node, volumeNode, options or ImportOptions())
    return node


def newOrGiven(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode | None,
               ) -> tuple[slicer.vtkMRMLSegmentationNode, bool]:
    """The given node, or a new one named after the volume; and whether it is new."""
    if segmentationNode is not None:
        return segmentationNode, False
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} segmentation")
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name), True


def addSegments(segments: Sequence[slicer.vtkSegment], segmentationNode: slicer.vtkMRMLSegmentationNode,
                volumeNode: slicer.vtkMRMLVolumeNode, options: ImportOptions) -> None:
    """Add segments, which have labelmaps, to a node, and attach that to the volume."""
    segmentation = segmentationNode.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0:
        segmentation.SetSourceRepresentationName(LABELMAP)
    elif segmentation.GetSourceRepresentationName() != LABELMAP:
        segmentation.CreateRepresentation(LABELMAP)  # before, or the segments that are there would lose their shapes
        segmentation.SetSourceRepresentationName(LABELMAP)
    for segment in segments:
        _add(segment, segmentation, options.replaceExisting)
    segmentationNode.CreateDefaultDisplayNodes()
    attachToVolume(segmentationNode, volumeNode)
    if options.smoothing is not None:
        segmentation.SetConversionParameter(_SMOOTHING, str(options.smoothing))
        segmentation.RemoveRepresentation(_SURFACE)  # one that was made with another smoothing
        segmentationNode.CreateClosedSurfaceRepresentation()


def _add(segment: slicer.vtkSegment, segmentation: slicer.vtkSegmentation, replaces: bool) -> None:
    name, position = segment.GetName(), -1
    old = segmentation.GetSegmentIdBySegmentName(name)
    if old and replaces:
        position = segmentation.GetSegmentIndex(old)
        segmentation.RemoveSegment(old)
    elif old:
        number = next(number for number in itertools.count(2)
                      if not segmentation.GetSegmentIdBySegmentName(f"{name} {number}"))
        segment.SetName(f"{name} {number}")
    identity = segmentation.GenerateUniqueSegmentID(segment.GetName())
    segmentation.AddSegment(segment, identity)
    if position >= 0:
        segmentation.SetSegmentIndex(identity, position)


def canReceive(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
    """Whether a segmentation may get segments of the volume: not if that would move the segments that it has."""
    return (segmentationNode.GetSegmentation().GetNumberOfSegments() == 0
            or segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID())


def attachToVolume(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Give the segmentation the volume's geometry as reference, its transform, and a place beside it in the tree."""
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    segmentationNode.SetNodeReferenceID(
        slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    placeBeside(segmentationNode, volumeNode)


def placeBeside(node: slicer.vtkMRMLNode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Put a node into the folder, study or patient of the subject hierarchy in which the volume is."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    volumeItem = hierarchy.GetItemByDataNode(volumeNode) if hierarchy is not None else 0
    if not volumeItem:
        return
    parent = hierarchy.GetItemParent(volumeItem)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def removeFromScene(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Remove a segmentation and what shows it."""
    if segmentationNode.GetDisplayNode() is not None:
        slicer.mrmlScene.RemoveNode(segmentationNode.GetDisplayNode())
    slicer.mrmlScene.RemoveNode(segmentationNode)


def _moveOntoVoxels(segmentation: slicer.vtkSegmentation, source: np.ndarray, target: np.ndarray) -> None:
    """Replace the geometry of every labelmap, which lies on the grid `source`, by the grid `target`."""
    moved: set[str] = set()
    for index in range(segmentation.GetNumberOfSegments()):
        labelmap = segmentation.GetNthSegment(index).GetRepresentation(LABELMAP)
        if labelmap is None or labelmap.GetAddressAsString("") in moved:
            continue
        moved.add(labelmap.GetAddressAsString(""))
        matrix = vtk.vtkMatrix4x4()
        labelmap.GetImageToWorldMatrix(matrix)
        offset = np.linalg.inv(source) @ slicer.util.arrayFromVTKMatrix(matrix)
        shifted = np.eye(4)
        shifted[:3, 3] = np.round(offset[:3, 3])
        if not np.allclose(offset, shifted, atol=1e-3):
            raise RuntimeError(_("The segmentation was computed on another grid than the volume's; it was not "
                                 "loaded."))
        labelmap.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(target @ shifted))
