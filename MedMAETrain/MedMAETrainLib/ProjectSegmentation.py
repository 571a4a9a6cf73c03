"""A segmentation of the scene on its way into a project: as it was drawn, and as a label map for the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.SegmentationImport import LABELMAP
from MedMAESegmentLib.SegmentationWriter import writeSegmentation
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import ijkToRas, networkGeometry, voxels

from medmae.volumes import Geometry, reorient, write_label
from medmae.volumes.segments import Segment
from medmae.volumes.terminology import from_slicer_text
from MedMAETrainLib.CaseExport import terminologyText
from MedMAETrainLib.LabelExport import Label, LabelMap, labelMap, segmentByName, segmentNames
from MedMAETrainLib.ProjectCase import CaseSegment
from MedMAETrainLib.ProjectLabels import chooseMapping, withLabel

_TOLERANCE_MM = 0.01  # headers of images have single precision


@dataclass(frozen=True)
class Drawn:
    """The segments of a segmentation, and the labels of the project with those that it brings.

    mapping - The label of each segment; None: left out.
    """

    mapping: dict[str, str | None]
    labels: tuple[Segment, ...]


@dataclass(frozen=True)
class Saved:
    """What was written, and what is to be told about it.

    segments - With their voxels.
    missing - Labels of the project that no voxel has.
    notes - What was repaired or is missing, for the user.
    """

    segmentation: Path
    label: Path | None
    segments: tuple[CaseSegment, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


def matchSegments(labels: Sequence[Segment], segmentationNode: slicer.vtkMRMLSegmentationNode,
                  given: Mapping[str, str | None] | None) -> Drawn:
    """Which label each segment is; new labels look like their segments.

    Raises:
        ValueError: there are no segments, names are missing or doubled, or a segment is like no label.
    """
    names = segmentNames(segmentationNode)
    if not names:
        raise ValueError(_("There is no segmentation, or it has no segments. Draw something first."))
    if "" in names:
        raise ValueError(_("A segment has no name. Segments are matched by their names: name it."))
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(_("There are {count} segments named {segment}. Merge or rename them.").format(
            count=names.count(doubled), segment=doubled))
    mapping = chooseMapping(labels, names, given)
    known = tuple(labels)
    for name in names:
        label = mapping[name]
        if label is not None and all(each.name != label for each in known):
            segment = segmentByName(segmentationNode, name)
            known = withLabel(known, label, segment.GetColor(), from_slicer_text(terminologyText(segment)))
    return Drawn(mapping, known)


def saveSegmentation(folder: Path, revision: int, volumeNode: slicer.vtkMRMLVolumeNode,
                     segmentationNode: slicer.vtkMRMLSegmentationNode, drawn: Drawn, grid: Geometry,
                     between: Callable[[], None]) -> Saved:
    """Write a segmentation of a volume into the folder of its case, beside what is there.

    :param revision: numbers the files.
    :param grid: of the image file of the case: the volume's, with the axes in any order and direction.
    :raises ValueError: the volume is not on this grid.
    """
    names = segmentNames(segmentationNode)
    wanted = [Label(name, label.value, label.color, "") for label in drawn.labels
              for name in names if drawn.mapping[name] == label.name]
    found = labelMap(volumeNode, segmentationNode, wanted, between)
    array, frame = _ontoGrid(found.array, volumeNode, grid)
    left = inBackground(lambda: _valuesIn(array), between)
    values = {label.name: label.value for label in wanted}
    counts = {name: count if values[name] in left else 0 for name, count in found.counts.items()}  # others took all
    segments = tuple(CaseSegment(name, drawn.mapping[name], counts.get(name, 0)) for name in names)
    truth = folder / f"segmentation-{revision:04d}.seg.nrrd"
    if not _writeAsDrawn(truth, volumeNode, segmentationNode, frame, between):
        shown = [label for label in drawn.labels if label.name in drawn.mapping.values()]
        inBackground(lambda: write_label(truth, array, grid, shown, "seg.nrrd"), between)
        segments = tuple(CaseSegment(label.name, label.name, sum(
            counts[name] for name in names if drawn.mapping[name] == label.name)) for label in shown)
    label = folder / f"label-{revision:04d}.nrrd" if wanted else None
    if label is not None:
        inBackground(lambda: write_label(label, array, grid, [], "nrrd"), between)
    seen = {drawn.mapping[name] for name, count in counts.items() if count}
    missing = tuple(each.name for each in drawn.labels if each.name not in seen)
    return Saved(truth, label, segments, missing, _notes(drawn, found, missing))


def gridOf(volumeNode: slicer.vtkMRMLVolumeNode) -> Geometry:
    """The grid with which a volume is written into a project.

    Raises:
        medmae.errors.BadInput: it is sheared.
    """
    k, j, i = voxels(volumeNode).shape[:3]
    return Geometry((k, j, i), networkGeometry(volumeNode))


def _valuesIn(array: np.ndarray) -> set[int]:
    """The values that occur, plane by plane: all at once would take eight times the memory."""
    return {int(value) for plane in array for value in np.flatnonzero(np.bincount(plane.ravel()))}


def _ontoGrid(array: np.ndarray, volumeNode: slicer.vtkMRMLVolumeNode, grid: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Labels on the voxels of an image file, which Slicer may have turned when it loaded it; and under which of its
    matrices the volume lies there."""
    for affine in (networkGeometry(volumeNode), ijkToRas(volumeNode)):
        turned, geometry = reorient(array, Geometry(array.shape, affine), grid.axes)
        if geometry.is_close(grid, _TOLERANCE_MM):
            return turned, affine
    raise ValueError(_("The volume {volume} does not lie on the voxels of the image of this case. Open the case, and "
                       "draw on the image that it opens.").format(volume=volumeNode.GetName()))


def _writeAsDrawn(path: Path, volumeNode: slicer.vtkMRMLVolumeNode, segmentationNode: slicer.vtkMRMLSegmentationNode,
                  frame: np.ndarray, between: Callable[[], None]) -> bool:
    """Write all segments with their layers, where the image of the case lies under `frame`; False: that cannot be
    done without resampling."""
    if segmentationNode.GetSegmentation().GetSourceRepresentationName() != LABELMAP:
        return False
    if segmentationNode.GetTransformNodeID() == volumeNode.GetTransformNodeID() and np.allclose(
            frame, ijkToRas(volumeNode)):
        writeSegmentation(path, segmentationNode, between)
        return True
    if not np.allclose(frame, _toWorld(volumeNode)):
        return False
    hardened, transform = slicer.vtkMRMLSegmentationNode(), vtk.vtkGeneralTransform()
    hardened.SetAndObserveSegmentation(slicer.vtkSegmentation())
    hardened.GetSegmentation().DeepCopy(segmentationNode.GetSegmentation())
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(segmentationNode.GetParentTransformNode(), None, transform)
    hardened.ApplyTransform(transform)
    writeSegmentation(path, hardened, between)
    return True


def _toWorld(volumeNode: slicer.vtkMRMLVolumeNode) -> np.ndarray:
    """The matrix to world coordinates, as far as there is one; NaN under a warping transform."""
    parent = volumeNode.GetParentTransformNode()
    if parent is None:
        return ijkToRas(volumeNode)
    if not parent.IsTransformToWorldLinear():
        return np.full((4, 4), np.nan)
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix) @ ijkToRas(volumeNode)


def _notes(drawn: Drawn, found: LabelMap, missing: Sequence[str]) -> tuple[str, ...]:
    notes = []
    if found.resampled:
        notes.append(_("Drawn on another grid than the image's; resampled onto it."))
    notes += [_("{first} and {second} overlap in {count} voxels, which count as {label}.").format(
        first=first, second=second, count=count, label=drawn.mapping[first])
        for (first, second), count in found.overlaps.items()]
    if missing:
        notes.append(_("No voxel of {labels}.").format(labels=", ".join(missing)))
    left = [name for name, label in drawn.mapping.items() if label is None]
    if left:
        notes.append(_("Left out: {segments}.").format(segments=", ".join(left)))
    return tuple(notes)
