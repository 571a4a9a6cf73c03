"""Put the result of a model into the segmentation that is being edited, only where editing is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import slicer
import vtk

from MedMAESegmentLib.Translation import tr as _

_ADD, _SET = (slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd,
              slicer.vtkSlicerSegmentEditorLogic.ModificationModeSet)


@dataclass(frozen=True)
class LabelMapping:
    """Which structures of the model go into which segments.

    Attributes:
        structures: names of the structures to take; empty: all.
        intoSegment: ID of the segment that gets all of them together; empty: each goes into the segment of its name,
            which is added where there is none.
    """

    structures: tuple[str, ...] = ()
    intoSegment: str = ""


class EditorResult:
    """Applies a result to the segmentation of a Segment Editor, with the editor's mask settings.

    Within the editable area and intensity range a segment becomes what the model found; outside it stays as it is.
    The editable area is the one before the result is applied: a structure does not lose voxels to the order in which
    the structures are applied. The editor's overwrite mode decides whether the other segments lose what is added.
    The logic keeps no undo state here: save the editor's own before.

    >>> EditorResult(editorNode).apply(resultNode, LabelMapping())
    ['liver', 'tumour']
    """

    def __init__(self, editorNode: slicer.vtkMRMLSegmentEditorNode) -> None:
        self._editor = editorNode
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(editorNode.GetScene())
        self._logic.SetSegmentEditorNode(editorNode)

    def apply(self, resultNode: slicer.vtkMRMLSegmentationNode, mapping: LabelMapping) -> list[str]:
        """Apply a segmentation node; the names of the segments that were written.

        Raises:
            ValueError: the segmentation has no geometry, or there is no such segment or structure.
        """
        geometry = self._geometry()
        targets = self._targets(resultNode, mapping)
        selected = self._editor.GetSelectedSegmentID()
        wasModified = self._editor.StartModify()
        try:
            found = {target: self._union(resultNode, sources, geometry) for target, sources in targets.items()}
            for target, labelmap in found.items():
                self._modify(target, labelmap, _ADD)
            for target, labelmap in found.items():
                self._modify(target, self._kept(target, labelmap, geometry), _SET)
        finally:
            self._editor.SetSelectedSegmentID(selected)
            self._editor.EndModify(wasModified)
        return [self._segmentation().GetSegment(target).GetName() for target in targets]

    def _geometry(self) -> slicer.vtkOrientedImageData:
        """The grid on which the segmentation is edited, without voxels."""
        geometry = slicer.vtkOrientedImageData()
        if not slicer.vtkSegmentationConverter.DeserializeImageGeometry(
                self._logic.GetReferenceImageGeometryString(), geometry, False):
            raise ValueError(_("The segmentation has no geometry. Choose a source volume in the Segment Editor."))
        return geometry

    def _targets(self, resultNode: slicer.vtkMRMLSegmentationNode, mapping: LabelMapping) -> dict[str, list[str]]:
        """Segment IDs of the segmentation, each with the segment IDs of the result that go into it."""
        source = resultNode.GetSegmentation()
        structures = {source.GetSegment(key).GetName(): key for key in source.GetSegmentIDs()}
        unknown = [name for name in mapping.structures if name not in structures]
        if unknown:
            raise ValueError(_("The result has no structure {unknown}, only {structures}.").format(
                unknown=", ".join(unknown), structures=", ".join(structures)))
        wanted = {name: key for name, key in structures.items() if not mapping.structures or name in mapping.structures}
        if mapping.intoSegment:
            if self._segmentation().GetSegment(mapping.intoSegment) is None:
                raise ValueError(_("The segment that should get the result is not there any more. Select another "
                                   "one."))
            return {mapping.intoSegment: list(wanted.values())}
        targets = {self._segmentNamed(name, source.GetSegment(key)): [key] for name, key in wanted.items()}
        # A segment that is itself the editable area comes last, for it must not shrink before the others are written.
        mask = self._editor.GetMaskSegmentID()
        return dict(sorted(targets.items(), key=lambda target: target[0] == mask))

    def _segmentNamed(self, name: str, like: slicer.vtkSegment) -> str:
        segmentation = self._segmentation()
        segmentID = segmentation.GetSegmentIdBySegmentName(name)
        if segmentID:
            return segmentID
        segmentID = segmentation.AddEmptySegment("", name, like.GetColor())
        segment = segmentation.GetSegment(segmentID)
        tag, terminology = segment.GetTerminologyEntryTagName(), vtk.reference("")
        if like.GetTag(tag, terminology):
            segment.SetTag(tag, str(terminology))
        return segmentID

    def _segmentation(self) -> slicer.vtkSegmentation:
        return self._editor.GetSegmentationNode().GetSegmentation()

    def _union(self, node: slicer.vtkMRMLSegmentationNode, segmentIDs: Sequence[str],
               geometry: slicer.vtkOrientedImageData) -> slicer.vtkOrientedImageData:
        """Where any of the segments of `node` is, on the editor's grid and in its place."""
        union = slicer.vtkOrientedImageData()
        slicer.vtkSegmentationConverter.DeserializeImageGeometry(
            self._logic.GetReferenceImageGeometryString(), union, True, vtk.VTK_UNSIGNED_CHAR, 1)
        slicer.vtkOrientedImageDataResample.FillImage(union, 0)
        transform = vtk.vtkGeneralTransform()
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
            node.GetParentTransformNode(), self._editor.GetSegmentationNode().GetParentTransformNode(), transform)
        for segmentID in segmentIDs:
            labelmap, placed = slicer.vtkOrientedImageData(), slicer.vtkOrientedImageData()
            node.GetBinaryLabelmapRepresentation(segmentID, labelmap)
            if labelmap.GetNumberOfPoints() == 0:
                continue  # the model did not find it
            slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
                labelmap, geometry, placed, False, False, transform)
            slicer.vtkOrientedImageDataResample.ModifyImage(
                union, placed, slicer.vtkOrientedImageDataResample.OPERATION_MAXIMUM)
        return union

    def _kept(self, segmentID: str, found: slicer.vtkOrientedImageData,
              geometry: slicer.vtkOrientedImageData) -> slicer.vtkOrientedImageData:
        """What of a segment the model confirms."""
        kept = self._union(self._editor.GetSegmentationNode(), [segmentID], geometry)
        slicer.vtkOrientedImageDataResample.ModifyImage(
            kept, found, slicer.vtkOrientedImageDataResample.OPERATION_MINIMUM)
        return kept

    def _modify(self, segmentID: str, labelmap: slicer.vtkOrientedImageData, mode: int) -> None:
        # The mask "outside of the other segments" means those other than the selected one.
        self._editor.SetSelectedSegmentID(segmentID)
        self._logic.ModifySegmentByLabelmap(self._editor.GetSegmentationNode(), segmentID, labelmap, mode, False, False)
