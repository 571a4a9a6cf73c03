"""A segmentation of the scene as a file, written as Slicer writes it, without holding the event loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.SegmentationImport import LABELMAP
from MedMAESegmentLib.Translation import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from medmae.files import PARTIAL, atomic_path
from medmae.volumes.compression import write_gzip

_SLAB = 16  # planes that are copied before the application may react again


@dataclass(frozen=True)
class _Layers:
    """What is drawn, in as few label maps as possible; the segment with the number n has the value n + 1.

    first - The voxel (i, j, k) at which the arrays begin.
    arrays - (k, j, i) uint8, all of one size.
    of - In which of them each segment is.
    """

    first: tuple[int, int, int]
    arrays: list[np.ndarray]
    of: list[int]


def writeSegmentation(path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode,
                      between: Callable[[], None]) -> None:
    """Write the labelmaps of a segmentation, with everything that Slicer knows of the segments, as .seg.nrrd.

    Slicer's writer says what stands in the header, but gets one voxel of each layer only: of a large scan it would
    take seconds, and (5.12) it moves what is drawn when the first segment is empty. Layers that lie on several grids
    are left to it.

    Raises:
        OSError: the file cannot be written.
    """
    segmentation = segmentationNode.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    layers = _layersOf(segments, between) if _areOnOneGrid(segments) else None
    plain = path.with_name(f"{PARTIAL}{path.name}")
    try:
        header = None
        if layers is not None:
            _writeBySlicer(plain, _sketch(segmentation, segments, layers), isCropped=True)
            header = _completed(_contentOf(plain)[0], layers)
        if layers is not None and header is not None:
            arrays = layers.arrays
        else:
            _writeBySlicer(plain, segmentationNode, isCropped=False)
            header, content = _contentOf(plain)
            arrays = [content]
        with atomic_path(path) as target:
            inBackground(lambda: _compress(target, header, arrays), between)
    finally:
        plain.unlink(missing_ok=True)


def _areOnOneGrid(segments: Sequence[Any]) -> bool:
    """Whether there is something drawn, all of it on the same voxels."""
    labelmaps = [labelmap for segment in segments if (labelmap := _drawn(segment)) is not None]
    grids = [_imageToWorld(each) for each in labelmaps]
    return bool(grids) and len(segments) < 256 and all(np.array_equal(grid, grids[0]) for grid in grids)


def _drawn(segment: Any) -> Any | None:
    """The labelmap of a segment, unless it has no voxels at all."""
    labelmap = segment.GetRepresentation(LABELMAP)
    return labelmap if labelmap is not None and not labelmap.IsEmpty() else None


def _imageToWorld(labelmap: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _layersOf(segments: Sequence[Any], between: Callable[[], None]) -> _Layers:
    """Copy all labelmaps into arrays that are as large as all of them together."""
    members: dict[str, list[int]] = {}  # the numbers of the segments of each labelmap
    for number, segment in enumerate(segments):
        labelmap = _drawn(segment)
        members.setdefault("" if labelmap is None else labelmap.GetAddressAsString(""), []).append(number)
    empty = members.pop("", [])
    extents = {place: np.array(_drawn(segments[numbers[0]]).GetExtent()).reshape(3, 2)
               for place, numbers in members.items()}
    first = np.min([extent[:, 0] for extent in extents.values()], 0)
    last = np.max([extent[:, 1] for extent in extents.values()], 0)
    arrays: list[np.ndarray] = []
    of = dict.fromkeys(empty, 0)
    for place, numbers in members.items():
        extent = extents[place]
        stored = vtk_to_numpy(_drawn(segments[numbers[0]]).GetPointData().GetScalars()).reshape(
            (extent[:, 1] - extent[:, 0] + 1)[::-1])
        region = tuple(slice(start, start + size) for start, size in zip(
            (extent[:, 0] - first)[::-1], stored.shape, strict=True))
        values = {segments[number].GetLabelValue(): number + 1 for number in numbers}
        free = next((layer for layer, array in enumerate(arrays) if _isFree(array[region], stored, between)), None)
        if free is None:
            free = len(arrays)
            arrays.append(np.zeros((last - first + 1)[::-1], np.uint8))
        _place(arrays[free][region], stored, values, between)
        of |= dict.fromkeys(numbers, free)
    return _Layers((int(first[0]), int(first[1]), int(first[2])), arrays, [of[n] for n in range(len(segments))])


def _slabs(planes: int) -> Iterator[slice]:
    return (slice(start, start + _SLAB) for start in range(0, planes, _SLAB))


def _isFree(array: np.ndarray, stored: np.ndarray, between: Callable[[], None]) -> bool:
    """Whether nothing is where something is stored."""
    for slab in _slabs(len(stored)):
        if np.logical_and(array[slab], stored[slab]).any():
            return False
        between()
    return True


def _place(array: np.ndarray, stored: np.ndarray, values: dict[int, int], between: Callable[[], None]) -> None:
    """Put what is stored into an array, with other values."""
    table = np.zeros(max(*values, int(stored.max(initial=0))) + 1, np.uint8)
    for before, after in values.items():
        table[before] = after
    for slab in _slabs(len(stored)):
        array[slab] |= table[stored[slab]]
        between()


def _sketch(segmentation: slicer.vtkSegmentation, segments: Sequence[Any],
            layers: _Layers) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of the same segments whose layers have one voxel each: the first one."""
    node = slicer.vtkMRMLSegmentationNode()
    node.SetAndObserveSegmentation(slicer.vtkSegmentation())
    small = node.GetSegmentation()
    small.SetSourceRepresentationName(LABELMAP)
    small.CopyConversionParameters(segmentation)
    drawn = next(labelmap for segment in segments if (labelmap := _drawn(segment)) is not None)
    matrix = vtk.vtkMatrix4x4()
    drawn.GetImageToWorldMatrix(matrix)
    voxels: dict[int, Any] = {}
    for number, segment in enumerate(segments):
        layer = layers.of[number]
        if layer not in voxels:
            voxels[layer] = slicer.vtkOrientedImageData()
            voxels[layer].SetExtent(*(place for place in layers.first for _side in range(2)))
            voxels[layer].AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
            voxels[layer].GetPointData().GetScalars().Fill(number + 1)  # layers overlap there: they stay apart
            voxels[layer].SetGeometryFromImageToWorldMatrix(matrix)
        copy = slicer.vtkSegment()
        copy.DeepCopyMetadata(segment)
        copy.SetLabelValue(number + 1)
        copy.AddRepresentation(LABELMAP, voxels[layer])
        small.AddSegment(copy, segmentation.GetNthSegmentID(number))
    return node


def _completed(header: str, layers: _Layers) -> str | None:
    """The header of the sketch, with the sizes of the whole; None: Slicer has put layers together."""
    (k, j, i), count = layers.arrays[0].shape, len(layers.arrays)
    beside = f"{count} " if count > 1 else ""
    header, found = re.subn(rf"(?m)^sizes: {beside}1 1 1$", f"sizes: {beside}{i} {j} {k}", header)
    if not found:
        return None
    for number, layer in enumerate(layers.of):
        for key, text in (("Extent", f"0 {i - 1} 0 {j - 1} 0 {k - 1}"), ("Layer", layer), ("LabelValue", number + 1)):
            header = re.sub(rf"(?m)^Segment{number}_{key}:=.*$", f"Segment{number}_{key}:={text}", header)
    return header


def _writeBySlicer(path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode, isCropped: bool) -> None:
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: where the node is saved is the user's choice
    storage.SetUseCompression(False)
    storage.SetCropToMinimumExtent(isCropped)
    storage.SetFileName(str(path))
    if not storage.WriteData(segmentationNode):
        raise OSError(_("{file} cannot be written. Check free space and permissions.").format(
            file=path.with_name(path.name.removeprefix(PARTIAL))))


def _contentOf(plain: Path) -> tuple[str, np.ndarray]:
    """The header of an NRRD file of plain voxels, and the voxels as bytes."""
    content = np.fromfile(plain, np.uint8)
    header, separator, _voxels = content[:2**20].tobytes().partition(b"\n\n")
    return header.decode("utf-8", errors="surrogateescape"), content[len(header) + len(separator):]


def _compress(path: Path, header: str, arrays: Sequence[np.ndarray]) -> None:
    """Write voxels, those of several layers beside each other."""
    text = re.sub(r"(?m)^encoding: raw$", "encoding: gzip", header)
    voxels = arrays[0] if len(arrays) == 1 else np.stack(arrays, -1)
    with open(path, "wb") as file:
        file.write(text.encode("utf-8", errors="surrogateescape") + b"\n\n")
        write_gzip(file, voxels.reshape(-1))
