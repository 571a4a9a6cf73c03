"""Where the result of a segmentation goes, while anything may happen to the scene before it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import slicer

import medmae
from MedMAESegmentLib.EditorSetup import saveStateOfEditor
from MedMAESegmentLib.FollowedJob import RunFailed
from MedMAESegmentLib.ImportOptions import ImportOptions
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.SegmentationImport import canReceive, removeFromScene
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import networkGeometry, voxelGrid

Importer = Callable[[Any, Any], Any]


class SegmentationReceiver:
    """Remembers the nodes of a segmentation under way, puts the result where it was wanted, and takes it out again.

    The user may delete or change any of the nodes meanwhile.
    """

    def __init__(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode],
                 segmentationNode: slicer.vtkMRMLSegmentationNode | None, attributes: Mapping[str, str],
                 options: ImportOptions) -> None:
        """`attributes` are recorded in the node, with MedMAE. before their names."""
        self.options, self.geometry = options, networkGeometry(volumeNodes[0])
        self._volumes = [NodeReference(node) for node in volumeNodes]
        self._names = [node.GetName() for node in volumeNodes]
        self._grid = voxelGrid(volumeNodes[0])
        self._segmentation = NodeReference(segmentationNode) if segmentationNode is not None else None
        self._attributes = {**attributes, **_frameOf(volumeNodes[0])}
        self._history: slicer.vtkSegmentationHistory | None = None
        self._made: NodeReference | None = None
        self._before: dict[str, str | None] = {}

    @property
    def volumeNode(self) -> slicer.vtkMRMLVolumeNode | None:
        """The volume that gives the grid; None once it has left the scene."""
        return self._volumes[0].node

    def whyPointless(self) -> RunFailed | None:
        """Why the result could not be used any more; None while it can."""
        for name, reference in zip(self._names, self._volumes, strict=True):
            if reference.node is None:
                text = _("The volume {volume} was removed from the scene while it was being segmented; the result was "
                         "discarded. Load the volume and segment it again.")
                return RunFailed(text.format(volume=name))
        return None

    def receive(self, importInto: Importer) -> slicer.vtkMRMLSegmentationNode:
        """Call ``importInto(volumeNode, segmentationNode)``, which returns the filled node, and record what made it.

        Raises:
            RunFailed: the volume is gone, or was changed.
        """
        lost, volumeNode = self.whyPointless(), self.volumeNode
        if lost is not None:
            raise lost
        if voxelGrid(volumeNode) != self._grid:
            text = _("The volume {volume} was changed while it was being segmented; the result was discarded. Segment "
                     "it again.")
            raise RunFailed(text.format(volume=volumeNode.GetName()))
        segmentationNode = self._segmentation.node if self._segmentation is not None else None
        if segmentationNode is not None and not canReceive(segmentationNode, volumeNode):
            segmentationNode = None  # it was moved away meanwhile: the result gets a node of its own
        if segmentationNode is not None:
            self._history = slicer.vtkSegmentationHistory()
            self._history.SetSegmentation(segmentationNode.GetSegmentation())
            self._history.SaveState()
            saveStateOfEditor(segmentationNode)
        node = importInto(volumeNode, segmentationNode)
        self._made = NodeReference(node)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        for name, value in {**self._attributes, "version": medmae.__version__, "date": date}.items():
            self._before[name] = node.GetAttribute(f"MedMAE.{name}")
            node.SetAttribute(f"MedMAE.{name}", value)
        return node

    def undo(self) -> bool:
        """Take the result out again: the segments are as they were before, and a node made for it is removed.

        Returns:
            Whether there was something to undo.
        """
        node = self._made.node if self._made is not None else None
        self._made = None
        if node is None:
            return False
        if self._history is None:
            removeFromScene(node)
            return True
        for name, value in self._before.items():
            node.RemoveAttribute(f"MedMAE.{name}") if value is None else node.SetAttribute(f"MedMAE.{name}", value)
        return bool(self._history.RestorePreviousState())


def attributesOf(info: Any, options: Mapping[str, Any]) -> dict[str, str]:
    """What a node says about the model that made it, and how."""
    said = {name: value for name, value in options.items() if value not in (None, False)}
    return {"model": info.name, "modelVersion": info.weights_sha256, "options": json.dumps(said, sort_keys=True)}


def _frameOf(volumeNode: slicer.vtkMRMLVolumeNode) -> dict[str, str]:
    """Which frame of a sequence the volume shows at the moment."""
    for index in range(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = slicer.mrmlScene.GetNthNodeByClass(index, "vtkMRMLSequenceBrowserNode")
        if browser.GetSequenceNode(volumeNode) is not None:
            return {"frame": str(browser.GetSelectedItemNumber())}
    return {}
