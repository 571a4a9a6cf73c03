"""A region of interest drawn in Slicer as the box in patient coordinates that the engine takes."""

from __future__ import annotations

import itertools

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import ijkToRas, networkGeometry, voxels


def boxInVolume(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> list[float]:
    """`boxOfRoi`, where there are voxels of the volume in it.

    Raises:
        ValueError: it is no region, has no size, or misses the volume.
    """
    from medmae.errors import BadInput
    from medmae.volumes import Geometry
    from medmae.volumes.region import region_of_box

    box, shape = boxOfRoi(roiNode, volumeNode), voxels(volumeNode).shape
    try:
        region_of_box(box, Geometry((shape[0], shape[1], shape[2]), networkGeometry(volumeNode)))
    except BadInput:
        text = _("The region {region} misses the volume {volume}, so there is nothing to segment in it. Move it onto "
                 "the volume, or segment the whole volume.")
        raise ValueError(text.format(region=roiNode.GetName(), volume=volumeNode.GetName())) from None
    return box


def boxOfRoi(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> list[float]:
    """R0, R1, A0, A1, S0, S1 in mm: the smallest box along the patient's axes that holds the region.

    Under a parent transform of the volume that does not count for the network (see `networkGeometry`), the box is where
    the region lies on the scan as it was acquired.

    Raises:
        ValueError: it is no region, or has no size.
    """
    corners = _corners(roiNode)
    if not np.array_equal(networkGeometry(volumeNode), ijkToRas(volumeNode)):
        return _boxOf(corners)
    toVolume = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, volumeNode.GetParentTransformNode(), toVolume)
    return _boxOf(np.array([toVolume.TransformPoint(corner) for corner in corners]))


def isRotated(roiNode: slicer.vtkMRMLMarkupsROINode) -> bool:
    """Whether the region's sides are not along the patient's axes, so that its box is larger than itself."""
    axes = np.abs(slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())[:3, :3])
    return bool(np.any(np.sort(axes, axis=0)[:2] > 1e-3))


def fitToVolume(roiNode: slicer.vtkMRMLMarkupsROINode, volumeNode: slicer.vtkMRMLVolumeNode) -> None:
    """Make a region the smallest box along the patient's axes that holds the whole volume."""
    bounds = np.zeros(6)
    volumeNode.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    roiNode.SetCenterWorld(*((low + high) / 2))
    roiNode.SetSizeWorld(*(high - low))


def _corners(roiNode: slicer.vtkMRMLMarkupsROINode) -> np.ndarray:
    """The eight corners (8, 3) in world coordinates."""
    if not isinstance(roiNode, slicer.vtkMRMLMarkupsROINode):
        raise ValueError(_("The region must be a markups ROI. Draw one with the ROI button of the module Markups."))
    size = np.array(roiNode.GetSize())
    if not np.all(size > 0):
        raise ValueError(_("The region {region} has no size. Draw it in a slice view first.").format(
            region=roiNode.GetName()))
    toWorld = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    corners = [[*(size / 2 * signs), 1.0] for signs in itertools.product((-1, 1), repeat=3)]
    return (toWorld @ np.array(corners).T).T[:, :3]


def _boxOf(corners: np.ndarray) -> list[float]:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [float(side) for axis in range(3) for side in (low[axis], high[axis])]
