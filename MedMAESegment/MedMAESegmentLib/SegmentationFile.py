"""Segmentations of the scene, saved as .seg.nrrd without holding the event loop."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from medmae.volumes import Geometry, write_label
from medmae.volumes.segments import Segment
from medmae.volumes.terminology import from_slicer_text
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.SegmentationImport import LABELMAP
from MedMAESegmentLib.VolumeExport import ijkToRas, voxels

ENDING = ".seg.nrrd"
_SAVED_AS = "MedMAE.savedAs"
_MOST_BYTES = 200  # of a file's name without number and ending; file systems take 255


class SegmentationFile(BackgroundTask[Path]):
    """A result of a model on its way into a file: its voxels are copied at once, compressed and written in a thread.

    Slicer's own writer would do all of it on the main thread, where it takes seconds. It is asked where somebody has
    changed the result so that segments may overlap or lie on other voxels than the volume's.
    """

    def __init__(self, path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode,
                 volumeNode: slicer.vtkMRMLVolumeNode) -> None:
        """Begin to write the segmentation of a volume.

        Raises:
            OSError: the file cannot be written.
        """
        k, j, i = voxels(volumeNode).shape[:3]
        geometry = Geometry((k, j, i), ijkToRas(volumeNode))
        layer, segments = _layerOf(segmentationNode, geometry), _segmentsOf(segmentationNode)
        self.path = path
        if layer is None:
            _writeBySlicer(path, segmentationNode)
        super().__init__(lambda: path if layer is None else _write(path, layer, segments, geometry))


def freePath(folder: Path, name: str, taken: Collection[Path]) -> Path:
    """A file in `folder`, called after a volume, that neither is there nor `taken`: nothing is ever overwritten."""
    plain, number = plainName(name), 1
    written = {str(each).casefold() for each in taken}  # "CT" and "ct" are one file on most computers
    path = folder / f"{plain}{ENDING}"
    while str(path).casefold() in written or path.exists():
        number += 1
        path = folder / f"{plain}-{number}{ENDING}"
    return path


def plainName(name: str) -> str:
    """A name without what not every file system takes."""
    plain = "".join(letter if letter.isalnum() or letter in " ._-" else "_" for letter in name)[:100].strip(" .")
    plain = plain.encode()[:_MOST_BYTES].decode(errors="ignore").strip(" .")
    return plain or "case"


def noteSaved(segmentationNode: slicer.vtkMRMLSegmentationNode, path: Path) -> None:
    """Remember where a segmentation was saved, so that another batch does not save it again."""
    segmentationNode.SetAttribute(_SAVED_AS, str(path))


def isSavedIn(segmentationNode: slicer.vtkMRMLSegmentationNode, folder: Path) -> bool:
    """Whether a segmentation was saved in `folder` and is there still."""
    path = segmentationNode.GetAttribute(_SAVED_AS)
    return path is not None and Path(path).parent == folder and os.path.isfile(path)  # noqa: PTH113 - asks, never fails


def _segmentsOf(node: slicer.vtkMRMLSegmentationNode) -> list[Segment]:
    """The segments, numbered from 1."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    return [Segment(segment.GetName(), number, tuple(segment.GetColor()),
                    from_slicer_text(segment.GetTerminology() or "")) for number, segment in enumerate(segments, 1)]


@dataclass(frozen=True)
class _Layer:
    """The labelmap that all segments share: where it lies in the grid, its voxels, and its values in their order."""

    box: tuple[slice, ...]
    voxels: np.ndarray
    values: list[int]

    def labels(self, shape: tuple[int, ...]) -> np.ndarray:
        """The whole grid (k, j, i), with the number of the segment in each voxel."""
        kind = np.uint8 if len(self.values) < 256 else np.int16
        table = np.zeros(max(int(self.voxels.max()), *self.values) + 1, kind)
        table[self.values] = np.arange(1, len(self.values) + 1)
        labels = np.zeros(shape, kind)
        labels[self.box] = table[self.voxels]
        return labels


def _layerOf(node: slicer.vtkMRMLSegmentationNode, geometry: Geometry) -> _Layer | None:
    """The voxels of the segments, copied; None where they are not as a model leaves them: in one layer on the grid."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    images = {image.GetAddressAsString(""): image for segment in segments
              if (image := segment.GetRepresentation(LABELMAP)) is not None}
    if len(images) != 1 or any(segment.GetRepresentation(LABELMAP) is None for segment in segments):
        return None
    (image,) = images.values()
    matrix, extent = vtk.vtkMatrix4x4(), image.GetExtent()
    image.GetImageToWorldMatrix(matrix)
    offset = np.linalg.inv(geometry.affine) @ slicer.util.arrayFromVTKMatrix(matrix)
    box = tuple(slice(extent[2 * axis], extent[2 * axis + 1] + 1) for axis in (2, 1, 0))
    isInside = all(0 <= part.start < part.stop <= size for part, size in zip(box, geometry.shape, strict=True))
    if not isInside or not np.allclose(offset, np.eye(4), atol=1e-3):
        return None
    stored = vtk_to_numpy(image.GetPointData().GetScalars()).reshape([part.stop - part.start for part in box])
    return _Layer(box, stored.copy(), [segment.GetLabelValue() for segment in segments])


def _write(path: Path, layer: _Layer, segments: list[Segment], geometry: Geometry) -> Path:
    return write_label(path, layer.labels(geometry.shape), geometry, segments, ENDING[1:])


def _writeBySlicer(path: Path, node: slicer.vtkMRMLSegmentationNode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: where the node is saved is the user's choice
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise OSError(f"{path} cannot be written. Check free space and permissions.")
