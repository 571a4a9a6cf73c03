"""The case of a project that is being drawn on in the Segment Editor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer

from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectFolder import ProjectFolder
from MedMAETrainLib.ProjectImport import caseOfNode


@dataclass(frozen=True)
class OpenCase:
    """A case, and the nodes of the scene that show it."""

    case: ProjectCase
    segmentationNode: Any
    volumeNode: Any


def openCaseOf(project: ProjectFolder) -> OpenCase | None:
    """The case whose segmentation is chosen in the Segment Editor; None: it is of no case."""
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    segmentationNode = editor.GetSegmentationNode() if editor is not None else None
    case = None if segmentationNode is None else caseOfNode(project, segmentationNode)
    if case is None:
        return None
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    volumeNode = segmentationNode.GetNodeReference(role)
    return None if volumeNode is None else OpenCase(case, segmentationNode, volumeNode)
