"""Segmentations of the scene, saved as .seg.nrrd without holding the event loop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from medmae.volumes import Geometry, write_label
from medmae.volumes.segments import Segment
from medmae.volumes.terminology import from_slicer_text
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.SegmentationImport import LABELMAP
from MedMAESegmentLib.VolumeExport import ijkToRas, voxels

ENDING = ".seg.nrrd"
_SAVED_AS = "MedMAE.savedAs"


class SegmentationFile(BackgroundTask[Path]):
    """A result of a model on its way into a file: its voxels are copied at once, compressed and written in a thread.

    Slicer's own writer would do all of it on the main thread, where it takes seconds.
    """

    def __init__(self, path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode,
                 volumeNode: slicer.vtkMRMLVolumeNode) -> None:
        """`segmentationNode` lies on the voxels of `volumeNode` and its segments do not overlap."""
        k, j, i = voxels(volumeNode).shape[:3]
        geometry = Geometry((k, j, i), ijkToRas(volumeNode))
        layers, segments = _layersOf(segmentationNode)
        self.path = path
        super().__init__(lambda: _write(path, layers, segments, geometry))


def freePath(folder: Path, name: str, taken: Collection[Path]) -> Path:
    """A file in `folder`, called after a volume, that neither is there nor `taken`: nothing is ever overwritten."""
    plain, number = plainName(name), 1
    path = folder / f"{plain}{ENDING}"
    while path in taken or path.exists():
        number += 1
        path = folder / f"{plain}-{number}{ENDING}"
    return path


def plainName(name: str) -> str:
    """A name without what not every file system takes."""
    plain = "".join(letter if letter.isalnum() or letter in " ._-" else "_" for letter in name)[:100].strip(" .")
    return plain or "case"


def noteSaved(segmentationNode: slicer.vtkMRMLSegmentationNode, path: Path) -> None:
    """Remember where a segmentation was saved, so that another batch does not save it again."""
    segmentationNode.SetAttribute(_SAVED_AS, str(path))


def isSavedIn(segmentationNode: slicer.vtkMRMLSegmentationNode, folder: Path) -> bool:
    """Whether a segmentation was saved in `folder` and is there still."""
    path = segmentationNode.GetAttribute(_SAVED_AS)
    return path is not None and Path(path).parent == folder and Path(path).is_file()


def _layersOf(node: slicer.vtkMRMLSegmentationNode) -> tuple[list[_Layer], list[Segment]]:
    """The parts of the grid in which there are segments, copied, and the segments, numbered from 1."""
    segmentation = node.GetSegmentation()
    layers: dict[str, _Layer] = {}
    segments = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        segments.append(Segment(segment.GetName(), index + 1, tuple(segment.GetColor()),
                                from_slicer_text(segment.GetTerminology() or "")))
        image = segment.GetRepresentation(LABELMAP)
        address = image.GetAddressAsString("")
        if address not in layers:
            extent = image.GetExtent()
            box = tuple(slice(extent[2 * axis], extent[2 * axis + 1] + 1) for axis in (2, 1, 0))
            stored = vtk_to_numpy(image.GetPointData().GetScalars()).reshape([part.stop - part.start for part in box])
            layers[address] = _Layer(box, stored.copy(), {})
        layers[address].numbers[segment.GetLabelValue()] = index + 1
    return list(layers.values()), segments


@dataclass(frozen=True)
class _Layer:
    """Segments that share a labelmap: where it lies in the grid, its voxels, and the number of each value."""

    box: tuple[slice, ...]
    voxels: np.ndarray
    numbers: dict[int, int]

    def putInto(self, labels: np.ndarray) -> None:
        """Write the numbers into the labels (k, j, i) of the whole grid."""
        table = np.zeros(int(max(self.voxels.max(), *self.numbers)) + 1, labels.dtype)
        table[list(self.numbers)] = list(self.numbers.values())
        part = table[self.voxels]
        np.copyto(labels[self.box], part, where=part > 0)


def _write(path: Path, layers: list[_Layer], segments: list[Segment], geometry: Geometry) -> Path:
    labels = np.zeros(geometry.shape, np.uint8 if len(segments) < 256 else np.int16)
    for layer in layers:
        layer.putInto(labels)
    return write_label(path, labels, geometry, segments, ENDING[1:])
