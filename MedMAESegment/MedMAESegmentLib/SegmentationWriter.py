"""A segmentation of the scene as a .seg.nrrd file, written as Slicer writes it, without holding the event loop."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from medmae.files import atomic_path
from medmae.volumes import Geometry, resample
from medmae.volumes.compression import write_gzip
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.SegmentationImport import LABELMAP
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import ijkToRas, voxels

_SLAB = 16  # planes that are copied before the application may react again
_MOST_BYTES = 255  # values of 8 bits beside the background


@dataclass(frozen=True)
class _Grid:
    """Voxels in the world: the RAS matrix of the indices (i, j, k), and the first and one after the last of them."""

    matrix: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(k, j, i)."""
        i, j, k = (self.stop - self.first).tolist()
        return k, j, i

    @property
    def geometry(self) -> Geometry:
        """The same, without indices that begin elsewhere than at 0."""
        affine = self.matrix.copy()
        affine[:3, 3] += self.matrix[:3, :3] @ self.first
        return Geometry(self.shape, affine)

    def isLike(self, other: _Grid) -> bool:
        """Whether voxels of the same indices lie in the same place."""
        return np.allclose(np.linalg.inv(other.matrix) @ self.matrix, np.eye(4), atol=1e-3)

    def around(self, other: _Grid) -> _Grid:
        """The grid that holds this one and one like it."""
        return _Grid(self.matrix, np.minimum(self.first, other.first), np.maximum(self.stop, other.stop))


@dataclass(frozen=True)
class _Labelmap:
    """Voxels (k, j, i) on their grid, and the numbers of the segments with these values in them."""

    grid: _Grid
    voxels: np.ndarray
    values: dict[int, int]


def writeSegmentation(path: Path, segmentationNode: slicer.vtkMRMLSegmentationNode,
                      between: Callable[[], None]) -> None:
    """Write the labelmaps of a segmentation, with everything that Slicer knows of the segments, as .seg.nrrd.

    Raises:
        OSError: the file cannot be written.
    """
    write = copiedSegmentation(segmentationNode, None, between)
    inBackground(lambda: write(path), between)


def copiedSegmentation(segmentationNode: slicer.vtkMRMLSegmentationNode, volumeNode: slicer.vtkMRMLVolumeNode | None,
                       between: Callable[[], None]) -> Callable[[Path], None]:
    """Copy a segmentation as it is now; returns what writes the copy as .seg.nrrd, in any thread.

    The file holds what is drawn, and the whole `volumeNode` where it is drawn on that one's voxels. What lies on
    several grids is sampled on Slicer's common one, at the nearest voxels.

    Slicer's writer says what stands in the header, but gets one voxel of each layer only: of a large scan it would
    take seconds on the main thread, and in 5.13 it moves what is drawn when the first segment is empty.

    Raises:
        OSError: there is no room for temporary files; of what is returned: the file cannot be written.
    """
    segmentation = segmentationNode.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    labelmaps = _copied(segments, between)
    if not labelmaps:
        header, content = _writtenBySlicer(segmentationNode, isCropped=False)
        return lambda path: _compress(path, header, [content])
    grid = _commonGrid(segmentation, labelmaps)
    whole = None if volumeNode is None else _gridOf(volumeNode)
    if whole is not None and grid.isLike(whole):
        grid = grid.around(whole)
    headers = [_header(segmentation, segments, grid, count) for count in range(1, min(len(segments), 2) + 1)]

    def write(path: Path) -> None:
        arrays, layers = _layered(labelmaps, grid, len(segments))
        _compress(path, _completed(headers[min(len(arrays), 2) - 1], grid, len(arrays), layers), arrays)

    return write


def _copied(segments: Sequence[Any], between: Callable[[], None]) -> list[_Labelmap]:
    """What is drawn; segments that share a labelmap share the copy."""
    copies: dict[str, _Labelmap] = {}
    for number, segment in enumerate(segments):
        labelmap = segment.GetRepresentation(LABELMAP)
        if labelmap is None or labelmap.IsEmpty():
            continue
        place = labelmap.GetAddressAsString("")
        if place not in copies:
            matrix, extent = vtk.vtkMatrix4x4(), np.array(labelmap.GetExtent()).reshape(3, 2)
            labelmap.GetImageToWorldMatrix(matrix)
            grid = _Grid(slicer.util.arrayFromVTKMatrix(matrix), extent[:, 0], extent[:, 1] + 1)
            stored = vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(grid.shape)
            copies[place] = _Labelmap(grid, np.empty_like(stored), {})
            for slab in _slabs(len(stored)):
                copies[place].voxels[slab] = stored[slab]
                between()
        copies[place].values[segment.GetLabelValue()] = number
    return list(copies.values())


def _slabs(planes: int) -> Iterator[slice]:
    return (slice(start, start + _SLAB) for start in range(0, planes, _SLAB))


def _gridOf(volumeNode: slicer.vtkMRMLVolumeNode) -> _Grid:
    shape = voxels(volumeNode).shape[:3]
    return _Grid(ijkToRas(volumeNode), np.zeros(3, int), np.array(shape[::-1]))


def _commonGrid(segmentation: slicer.vtkSegmentation, labelmaps: Sequence[_Labelmap]) -> _Grid:
    """The voxels that hold all that is drawn."""
    grid = labelmaps[0].grid
    if all(each.grid.isLike(grid) for each in labelmaps):
        for each in labelmaps:
            grid = grid.around(each.grid)
        return grid
    drawn, matrix, extent = vtk.vtkStringArray(), vtk.vtkMatrix4x4(), [0] * 6
    for number in sorted(number for each in labelmaps for number in each.values.values()):
        drawn.InsertNextValue(segmentation.GetNthSegmentID(number))
    text = segmentation.DetermineCommonLabelmapGeometry(segmentation.EXTENT_UNION_OF_SEGMENTS, drawn)
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, matrix, extent)
    sides = np.array(extent).reshape(3, 2)
    common = _Grid(slicer.util.arrayFromVTKMatrix(matrix), sides[:, 0], sides[:, 1] + 1)
    return _Grid(common.geometry.affine, np.zeros(3, int), common.stop - common.first)  # Slicer's starts anywhere


def _layered(labelmaps: Sequence[_Labelmap], grid: _Grid, segments: int) -> tuple[list[np.ndarray], list[int]]:
    """All labelmaps on one grid, in as few arrays as possible, where the segment with the number n has the value n + 1;
    and in which of the arrays each segment is."""
    arrays: list[np.ndarray] = []
    layers = [0] * segments
    for labelmap in labelmaps:
        stored, start = labelmap.voxels, np.zeros(3, int)
        if labelmap.grid.isLike(grid):
            start = (labelmap.grid.first - grid.first)[::-1]
        else:
            stored = resample(stored[None], labelmap.grid.geometry, grid.geometry, order=0, outside=0)[0]
        region = tuple(slice(first, first + size) for first, size in zip(start, stored.shape, strict=True))
        free = next((layer for layer, array in enumerate(arrays) if _isFree(array[region], stored)), len(arrays))
        if free == len(arrays):
            arrays.append(np.zeros(grid.shape, np.uint8 if segments <= _MOST_BYTES else np.int16))
        _place(arrays[free][region], stored, {value: number + 1 for value, number in labelmap.values.items()})
        for number in labelmap.values.values():
            layers[number] = free
    return arrays, layers


def _isFree(array: np.ndarray, stored: np.ndarray) -> bool:
    """Whether nothing is where something is stored."""
    return not any(np.logical_and(array[slab], stored[slab]).any() for slab in _slabs(len(stored)))


def _place(array: np.ndarray, stored: np.ndarray, values: dict[int, int]) -> None:
    """Put what is stored into an array, with other values."""
    table = np.zeros(max(*values, int(stored.max(initial=0))) + 1, array.dtype)
    for before, after in values.items():
        table[before] = after
    for slab in _slabs(len(stored)):
        array[slab] |= table[stored[slab]]


def _header(segmentation: slicer.vtkSegmentation, segments: Sequence[Any], grid: _Grid, count: int) -> str:
    """What Slicer writes before the voxels, of a file of one voxel in one layer or two."""
    header, _content = _writtenBySlicer(_sketch(segmentation, segments, grid, count), isCropped=True)
    own = f"Segmentation_ConversionParameters:={segmentation.SerializeAllConversionParameters()}"
    return re.sub(r"(?m)^Segmentation_ConversionParameters:=.*$", lambda _found: own, header)


def _sketch(segmentation: slicer.vtkSegmentation, segments: Sequence[Any], grid: _Grid,
            count: int) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of the same segments, in one layer or two that have one voxel each: the first of the grid."""
    node = slicer.vtkMRMLSegmentationNode()
    node.SetAndObserveSegmentation(slicer.vtkSegmentation())
    small = node.GetSegmentation()
    small.SetSourceRepresentationName(LABELMAP)
    small.CopyConversionParameters(segmentation)
    layers = [_voxel(grid, value, len(segments)) for value in range(1, count + 1)]
    small.SetConversionParameter(  # else Slicer puts the voxels on another grid
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(layers[0]))
    for number, segment in enumerate(segments):
        copy = slicer.vtkSegment()
        copy.DeepCopyMetadata(segment)
        copy.SetLabelValue(number + 1)
        copy.AddRepresentation(LABELMAP, layers[min(number, count - 1)])
        small.AddSegment(copy, segmentation.GetNthSegmentID(number))
    return node


def _voxel(grid: _Grid, value: int, segments: int) -> Any:
    """The labelmap of one voxel; those of all layers overlap, so that Slicer keeps them apart."""
    voxel = slicer.vtkOrientedImageData()
    voxel.SetExtent(*(int(place) for place in grid.first for _end in range(2)))
    voxel.AllocateScalars(vtk.VTK_UNSIGNED_CHAR if segments <= _MOST_BYTES else vtk.VTK_SHORT, 1)
    voxel.GetPointData().GetScalars().Fill(value)
    voxel.SetGeometryFromImageToWorldMatrix(slicer.util.vtkMatrixFromArray(grid.matrix))
    return voxel


def _completed(header: str, grid: _Grid, count: int, layers: Sequence[int]) -> str:
    """The header of the sketch, with the sizes of the whole, of `count` arrays."""
    k, j, i = grid.shape
    sizes = ([str(count)] if count > 1 else []) + [str(i), str(j), str(k)]
    header, found = re.subn(rf"(?m)^sizes: {'2 ' if count > 1 else ''}1 1 1$", f"sizes: {' '.join(sizes)}", header)
    if found != 1:
        text = _("This version of Slicer writes segmentations in a way that MedMAE does not know:\n{header}")
        raise RuntimeError(text.format(header=header[:300]))
    for number, layer in enumerate(layers):
        for key, text in (("Extent", f"0 {i - 1} 0 {j - 1} 0 {k - 1}"), ("Layer", layer), ("LabelValue", number + 1)):
            header = re.sub(rf"(?m)^Segment{number}_{key}:=.*$", f"Segment{number}_{key}:={text}", header)
    return header


def _writtenBySlicer(segmentationNode: slicer.vtkMRMLSegmentationNode, isCropped: bool) -> tuple[str, np.ndarray]:
    """The header that Slicer writes, and the voxels after it as bytes."""
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: where the node is saved is the user's choice
    storage.SetUseCompression(False)
    storage.SetCropToMinimumExtent(isCropped)
    folder = newTemporaryFolder()
    try:
        plain = folder / "plain.seg.nrrd"
        storage.SetFileName(str(plain))
        if not storage.WriteData(segmentationNode):
            raise OSError(_("{file} cannot be written. Check free space and permissions.").format(file=plain))
        content = np.fromfile(plain, np.uint8)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    header, separator, _voxels = content[:2**20].tobytes().partition(b"\n\n")
    return header.decode("utf-8", errors="surrogateescape"), content[len(header) + len(separator):]


def _compress(path: Path, header: str, arrays: Sequence[np.ndarray]) -> None:
    """Write voxels, those of several layers beside each other."""
    text = re.sub(r"(?m)^encoding: raw$", "encoding: gzip", header)
    together = arrays[0] if len(arrays) == 1 else np.stack(arrays, -1)
    with atomic_path(path) as target, open(target, "wb") as file:
        file.write(text.encode("utf-8", errors="surrogateescape") + b"\n\n")
        write_gzip(file, together.reshape(-1))
