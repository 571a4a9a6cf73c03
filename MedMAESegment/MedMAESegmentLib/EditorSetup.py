"""Segmentations made ready for correction in the Segment Editor."""

from __future__ import annotations

from typing import Any

import slicer

EDITOR_TAG = "MedMAESegment"


class EditorSetup:
    """What the module knows of the Segment Editor."""

    def replacedSegments(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None, info: Any) -> list[str]:
        """The names of the segments that a result of the model would replace in a segmentation."""
        if segmentationNode is None:
            return []
        names = [str(label["name"]) for label in info.labels[1:]]
        return [name for name in names if segmentationNode.GetSegmentation().GetSegmentIdBySegmentName(name)]

    def isResultOfAnother(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None,
                          volumeNode: slicer.vtkMRMLVolumeNode | None) -> bool:
        """Whether a segmentation was drawn on another volume than the given one."""
        if segmentationNode is None or volumeNode is None:
            return False
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        return segmentationNode.GetNodeReference(role) not in (None, volumeNode)

    def getSegmentEditorNode(self) -> slicer.vtkMRMLSegmentEditorNode:
        """The module's segment editor parameter node, the same one for the life of the scene."""
        node = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetName("MedMAE segment editor")
            node.SetSingletonTag(EDITOR_TAG)
            node = slicer.mrmlScene.AddNode(node)
        return node

    def editSegmentation(self, segmentationNode: slicer.vtkMRMLSegmentationNode,
                         editorNode: slicer.vtkMRMLSegmentEditorNode | None = None) -> slicer.vtkMRMLSegmentEditorNode:
        """Set up an editor node (default: the module's own) for a segmentation, its volume and its first segment."""
        editorNode = editorNode or self.getSegmentEditorNode()
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        editorNode.SetAndObserveSegmentationNode(segmentationNode)
        editorNode.SetAndObserveSourceVolumeNode(segmentationNode.GetNodeReference(role))
        segmentation = segmentationNode.GetSegmentation()
        editorNode.SetSelectedSegmentID(
            segmentation.GetNthSegmentID(0) if segmentation.GetNumberOfSegments() > 0 else "")
        return editorNode

    def openEditor(self, segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
        """Open Slicer's Segment Editor with a segmentation; needs the application."""
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = slicer.mrmlScene.AddNode(node)
        self.editSegmentation(segmentationNode, node)
        slicer.util.selectModule("SegmentEditor")


def saveStateOfEditor(segmentationNode: slicer.vtkMRMLSegmentationNode) -> None:
    """Let Undo in Slicer's Segment Editor lead back to the present state of a segmentation, where it is edited there.

    The states of a segmentation go when the editor turns to another one, so that there is nothing to save then.
    """
    widget = getattr(getattr(slicer, "modules", None), "SegmentEditorWidget", None)  # once it was opened
    editor = getattr(widget, "editor", None)
    if editor is not None and editor.segmentationNode() is segmentationNode:
        editor.saveStateForUndo()
