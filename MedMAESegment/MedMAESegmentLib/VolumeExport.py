"""Hand a volume to the engine: voxels and geometry, nothing else.

A storage node would also write attributes of the node into the file, which may hold patient data; and it holds the
event loop until all is on disk. NRRD is simple enough to write here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk

from MedMAESegmentLib.Translation import tr as _

_NRRD_TYPES = {"f4": "float", "f8": "double", "i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16",
               "i4": "int32", "u4": "uint32", "i8": "int64", "u8": "uint64"}
_SLAB_BYTES = 32 * 2**20


def voxels(volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """The voxels of a volume node, (k, j, i) or, for colour, (k, j, i, component), without copying.

    Raises:
        ValueError: the node is missing, empty, or holds something else than scalars or colours.
    """
    if not isinstance(volumeNode, slicer.vtkMRMLVolumeNode):
        raise ValueError(_("A volume is needed. Load one and select it."))
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ValueError(_("{volume} is a label map, not an image. Choose the image; one that was loaded as a label "
                           "map by mistake becomes a scalar volume in the module Volumes.").format(volume=name))
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        raise ValueError(_("The volume {volume} is empty. Load its image first.").format(volume=name))
    if image.GetNumberOfPoints() == 1:  # and Slicer crashes when it reads a segmentation of one voxel
        raise ValueError(_("The volume {volume} is a single voxel. Load a whole image.").format(volume=name))
    if image.GetNumberOfScalarComponents() not in (1, 3, 4):
        text = _("The volume {volume} has {components} components a voxel; MedMAE reads grey (1) and colour (3) "
                 "images. Extract one component first.")
        raise ValueError(text.format(volume=name, components=image.GetNumberOfScalarComponents()))
    return slicer.util.arrayFromVolume(volumeNode)


def ijkToRas(volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """The 4x4 matrix from (i, j, k, 1) to the node's own RAS coordinates in mm, without parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def voxelGrid(volumeNode: slicer.vtkMRMLVolumeNode) -> tuple:
    """What must not change between handing over and taking back: the voxel grid itself (a transform may move)."""
    image = volumeNode.GetImageData()
    return ijkToRas(volumeNode).tolist(), image.GetDimensions() if image is not None else None


def networkGeometry(volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """The 4x4 matrix (i, j, k, 1) to RAS in mm under which the network shall see the volume.

    A linear parent transform that keeps the voxel axes at right angles counts: it is how users correct a wrong
    orientation. A warping or shearing one does not: the network sees the scan as it was acquired. In both cases the
    result is defined on the volume's own voxels and is put under the same transform, so that it always overlays.
    """
    own = ijkToRas(volumeNode)
    parent = volumeNode.GetParentTransformNode()
    if parent is None or not parent.IsTransformToWorldLinear():
        return own
    toWorld = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(toWorld)
    world = slicer.util.arrayFromVTKMatrix(toWorld) @ own
    lengths = np.linalg.norm(world[:3, :3], axis=0)
    if not np.all(lengths > 0):
        return own
    axes = world[:3, :3] / lengths
    return world if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4) else own


def writeNrrd(path: Path, array: np.ndarray, affine: np.ndarray, between: Callable[[], None] = lambda: None) -> None:
    """Write (k, j, i) or (k, j, i, component) voxels with their RAS affine; `between` is called between slabs."""
    array = array[..., :3] if array.ndim == 4 else array
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    vectors = [f"({','.join(repr(float(value)) for value in lps[:3, axis])})" for axis in range(4)]
    sizes = [str(size) for size in reversed(array.shape)]
    colour = array.ndim == 4
    header = ["NRRD0004", f"type: {_NRRD_TYPES[array.dtype.str[1:]]}", f"dimension: {array.ndim}",
              "space: left-posterior-superior", f"sizes: {' '.join(sizes)}",
              f"space directions: {'none ' if colour else ''}{' '.join(vectors[:3])}",
              f"kinds: {'RGB-color ' if colour else ''}domain domain domain",
              "endian: little", "encoding: raw", f"space origin: {vectors[3]}", "", ""]
    slices = max(1, _SLAB_BYTES // max(1, array[0].nbytes))
    with open(path, "wb") as file:
        file.write("\n".join(header).encode("ascii"))
        for first in range(0, len(array), slices):
            file.write(np.ascontiguousarray(array[first:first + slices]).data)
            between()


def writeVolume(volumeNode: slicer.vtkMRMLVolumeNode, path: Path, between: Callable[[], None] = lambda: None) -> None:
    """Write a volume node as .nrrd under its `networkGeometry`.

    Raises:
        ValueError: see `voxels`.
    """
    writeNrrd(path, voxels(volumeNode), networkGeometry(volumeNode), between)
