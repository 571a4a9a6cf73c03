"""The segments of a segmentation node as one label map on the voxels of a volume."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import vtk
from MedMAESegmentLib.VolumeExport import ijkToRas, voxels
from vtk.util.numpy_support import vtk_to_numpy

_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
_SLAB = 16
Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Label:
    """One label of the dataset: its stored value, and how the user shows it."""

    name: str
    value: int
    color: tuple[float, float, float]
    terminology: str


def segmentNames(segmentationNode: Any) -> list[str]:
    """The names of the segments of a node, in order; none for a missing node.

    White space that nobody sees does not count: "liver " is "liver".
    """
    if not isinstance(segmentationNode, slicer.vtkMRMLSegmentationNode) or segmentationNode.GetSegmentation() is None:
        return []
    segmentation = segmentationNode.GetSegmentation()
    names = (segmentation.GetNthSegment(index).GetName() or "" for index in range(segmentation.GetNumberOfSegments()))
    return [" ".join(name.split()) for name in names]


def segmentByName(segmentationNode: slicer.vtkMRMLSegmentationNode, name: str) -> slicer.vtkSegment:
    """The first segment of that name, as `segmentNames` gives it."""
    return segmentationNode.GetSegmentation().GetNthSegment(segmentNames(segmentationNode).index(name))


@dataclass
class LabelMap:
    """Segments as one label map.

    array - (k, j, i) uint8 or uint16, on the volume's voxels.
    counts - How many voxels each segment has there, by name, before others that overlap it have taken some.
    overlaps - How many voxels two segments of different labels share, by their names.
    resampled - Whether a segment was not drawn on the volume's voxels.
    """

    array: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    overlaps: dict[tuple[str, str], int] = field(default_factory=dict)
    resampled: bool = False


def labelMap(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
             labels: Sequence[Label], between: Callable[[], None] = lambda: None) -> LabelMap:
    """The segments that have the names of `labels`, with their values, on the volume's voxels.

    Segments drawn on the volume's own grid are copied, a whole layer at a time; others are resampled one by one, with
    the transforms of both nodes. Where segments overlap, the one that comes first in `labels` keeps the voxels. A
    segment that the segmentation does not have leaves no trace. Several labels may share a value.
    """
    present = set(segmentNames(segmentationNode))
    labels = [label for label in labels if label.name in present]
    # While they are put together, segments are numbered so that the one that keeps a voxel has the lower number.
    kind = np.uint8 if len(labels) < 255 and max((label.value for label in labels), default=0) < 256 else np.uint16
    ranked = [dataclasses.replace(label, value=number) for number, label in enumerate(labels, 1)]
    array = np.zeros(voxels(volumeNode).shape[:3], kind)
    counts = np.zeros(len(labels) + 1, np.int64)
    clashes: dict[tuple[int, int], int] = defaultdict(int)

    def place(region: Region, values: np.ndarray) -> None:
        counts[:] += np.bincount(values.ravel(), minlength=len(counts))
        target = array[region]
        filled = values > 0
        clash = filled & (target > 0)
        if clash.any():
            pairs, shared = np.unique(np.stack([target[clash], values[clash]]), axis=1, return_counts=True)
            for (first, second), count in zip(pairs.T.tolist(), shared.tolist(), strict=True):
                clashes[min(first, second), max(first, second)] += count
            filled &= ~clash | (values < target)
        np.copyto(target, values, where=filled)
        between()

    hadLabelmaps = segmentationNode.GetSegmentation().ContainsRepresentation(_LABELMAP)
    resampled = _placeAll(volumeNode, segmentationNode, ranked, array.dtype, place)
    if not hadLabelmaps:  # resampling a surface has made them
        segmentationNode.GetSegmentation().RemoveRepresentation(_LABELMAP)
    table = np.array([0, *(label.value for label in labels)], kind)
    for plane in array:
        plane[...] = table[plane]
        between()
    overlaps = {(labels[first - 1].name, labels[second - 1].name): count for (first, second), count in clashes.items()
                if labels[first - 1].value != labels[second - 1].value}
    return LabelMap(array, {label.name: int(counts[label.value]) for label in ranked}, overlaps, resampled)


def labelArray(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
               labels: Sequence[Label], between: Callable[[], None] = lambda: None) -> tuple[np.ndarray, list[str]]:
    """The segments on the volume's voxels, (k, j, i) uint8 or uint16, and the problems found.

    Problems: a segment without a voxel in the volume; voxels that belong to two segments. See `labelMap`.
    """
    found = labelMap(volumeNode, segmentationNode, labels, between)
    problems = [f"the segment {name} is empty, or lies outside the volume"
                for name, count in found.counts.items() if not count]
    problems += [f"the segments {first} and {second} overlap in {count} voxels, but a voxel can have one label only"
                 for (first, second), count in found.overlaps.items()]
    return found.array, problems


def _placeAll(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
              labels: Sequence[Label], kind: np.dtype, place: Callable[[Region, np.ndarray], None]) -> bool:
    """Hand the voxels of all labels to `place`, slab by slab; whether some had to be resampled, so that their borders
    are not exactly where they were drawn."""
    resampled = False
    for labelmap, values in _layers(segmentationNode, labels):
        region, stored = _onVoxels(volumeNode, segmentationNode, labelmap)
        if stored is not None:
            for first in range(0, len(stored), _SLAB):  # slab by slab: short pauses, little memory
                slab = slice(region[0].start + first, min(region[0].start + first + _SLAB, region[0].stop))
                place((slab, *region[1:]), _renumbered(stored[first:first + _SLAB], values, kind))
            continue
        for label in (label for label in labels if label.value in values.values()):
            mask = _resampled(volumeNode, segmentationNode, label.name)
            if mask is not None and mask.any():
                resampled = resampled or not _isTurned(volumeNode, segmentationNode, labelmap)
                place((slice(None),) * 3, mask.astype(kind) * kind.type(label.value))
    return resampled


def _layers(segmentationNode: slicer.vtkMRMLSegmentationNode,
            labels: Sequence[Label]) -> list[tuple[Any, dict[int, int]]]:
    """Each labelmap (None: there is none yet) with its stored values and what they become."""
    layers: dict[str, tuple[Any, dict[int, int]]] = {}
    for label in labels:
        segment = segmentByName(segmentationNode, label.name)
        labelmap = segment.GetRepresentation(_LABELMAP)
        key = label.name if labelmap is None else labelmap.GetAddressAsString("")
        stored = label.value if labelmap is None else segment.GetLabelValue()
        layers.setdefault(key, (labelmap, {}))[1][stored] = label.value
    return list(layers.values())


def _onVoxels(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
              labelmap: Any) -> tuple[Region, np.ndarray | None]:
    """The part of a labelmap inside the volume and where it lies, (k, j, i); None when its grid is another one."""
    nothing: Region = (slice(0),) * 3
    if labelmap is None or segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return nothing, None
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    if not np.allclose(slicer.util.arrayFromVTKMatrix(matrix), ijkToRas(volumeNode), atol=1e-5):
        return nothing, None
    scalars = labelmap.GetPointData().GetScalars()
    extent = labelmap.GetExtent()
    if scalars is None or any(extent[axis] > extent[axis + 1] for axis in (0, 2, 4)):
        return nothing, np.zeros((0, 0, 0), np.uint8)
    stored = vtk_to_numpy(scalars).reshape([extent[axis + 1] - extent[axis] + 1 for axis in (4, 2, 0)])
    inVolume, inLabelmap = [], []
    for axis, size in zip((4, 2, 0), voxels(volumeNode).shape[:3], strict=True):
        first, last = max(0, extent[axis]), min(size - 1, extent[axis + 1])
        inVolume.append(slice(first, max(first, last + 1)))
        inLabelmap.append(slice(first - extent[axis], max(first, last + 1) - extent[axis]))
    return (inVolume[0], inVolume[1], inVolume[2]), stored[tuple(inLabelmap)]


def _isTurned(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
              labelmap: Any) -> bool:
    """Whether a labelmap has the volume's voxels with the axes in another order or direction: Slicer turns images
    whose axes are left-handed when it loads them."""
    if labelmap is None or segmentationNode.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        return False
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    between = np.linalg.solve(slicer.util.arrayFromVTKMatrix(matrix), ijkToRas(volumeNode))
    axes = np.abs(np.round(between[:3, :3]))
    isPermutation = bool((axes.sum(0) == 1).all() and (axes.sum(1) == 1).all())
    return isPermutation and np.allclose(between, np.round(between), atol=1e-3)


def _renumbered(stored: np.ndarray, values: dict[int, int], dtype: np.dtype) -> np.ndarray:
    """The stored values replaced by their labels; values of segments that are not asked for become background."""
    table = np.zeros(max(int(stored.max(initial=0)), *values) + 1, dtype)
    for value, label in values.items():
        table[value] = label
    return table[stored]


def _resampled(volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
               name: str) -> np.ndarray | None:
    """One segment on the volume's voxels, transforms included; None when it holds nothing at all."""
    segmentation, ids = segmentationNode.GetSegmentation(), vtk.vtkStringArray()
    ids.InsertNextValue(segmentation.GetSegmentIdBySegment(segmentByName(segmentationNode, name)))
    labelmap = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "MedMAE export")
    try:
        exported = slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(
            segmentationNode, ids, labelmap, volumeNode)
        if not exported or labelmap.GetImageData() is None:
            return None
        return slicer.util.arrayFromVolume(labelmap) > 0
    finally:
        display = labelmap.GetDisplayNode()  # exporting has made it, and a color table for it
        colors = display.GetColorNode() if display is not None else None
        for node in (colors, display, labelmap):
            if node is not None:
                slicer.mrmlScene.RemoveNode(node)
