"""A region of interest drawn in Slicer as the box in patient coordinates that the engine takes."""

from __future__ import annotations

import itertools

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.VolumeExport import ijkToRas, networkGeometry


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


def _corners(roiNode: slicer.vtkMRMLMarkupsROINode) -> np.ndarray:
    """The eight corners (8, 3) in world coordinates."""
    if not isinstance(roiNode, slicer.vtkMRMLMarkupsROINode):
        raise ValueError("The region must be a markups ROI. Draw one with the ROI button of the module Markups.")
    size = np.array(roiNode.GetSize())
    if not np.all(size > 0):
        raise ValueError(f"The region {roiNode.GetName()} has no size. Draw it in a slice view first.")
    toWorld = slicer.util.arrayFromVTKMatrix(roiNode.GetObjectToWorldMatrix())
    corners = [[*(size / 2 * signs), 1.0] for signs in itertools.product((-1, 1), repeat=3)]
    return (toWorld @ np.array(corners).T).T[:, :3]


def _boxOf(corners: np.ndarray) -> list[float]:
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [float(side) for axis in range(3) for side in (low[axis], high[axis])]
