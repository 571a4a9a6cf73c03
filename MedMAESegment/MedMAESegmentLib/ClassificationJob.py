"""One classification by the warm worker: class, probabilities and the slice that decided, as a table in the scene."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import slicer
import vtk

import medmae
from medmae.worker.client import Request
from MedMAESegmentLib.FollowedJob import RunFailed
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.SegmentationImport import placeBeside
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.WorkerJob import WorkerJob
from MedMAESegmentLib.WorkerSession import WorkerSession


@dataclass(frozen=True)
class Classification:
    """What a model says of an image.

    label - The class.
    probabilities - Of each class, from 0 to 1.
    decidingSlices - For each class ("i", "j" or "k", index) of the slice that speaks most for it, where the model looks
        at slices.
    calibrated - Whether the probabilities were calibrated on cases.
    tableNode - The same as a vtkMRMLTableNode.
    """

    label: str
    probabilities: dict[str, float]
    decidingSlices: dict[str, tuple[str, int]]
    calibrated: bool
    tableNode: slicer.vtkMRMLTableNode


class ClassificationJob(WorkerJob):
    """A classification under way; its `result` is a `Classification`."""

    def __init__(self, session: WorkerSession, request: Request, images: Sequence[Mapping[str, Any]],
                 volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], info: Any) -> None:
        super().__init__(session, request, images)
        self._volumes = [(node.GetName(), NodeReference(node)) for node in volumeNodes]
        self._info = info

    def _whyPointless(self) -> Exception | None:
        for name, reference in self._volumes:
            if reference.node is None:
                text = _("The volume {volume} was removed from the scene while it was being classified. Load it and "
                         "classify it again.")
                return RunFailed(text.format(volume=name))
        return None

    def _takeResult(self) -> Classification:
        facts, volumeNode = self._request.result, self._volumes[0][1].node
        slices = {name: (found["axis"], int(found["index"])) for name, found in facts["deciding_slices"].items()}
        table = _table(volumeNode, facts["probabilities"], slices)
        values = {"class": facts["label"], "probabilities": json.dumps(facts["probabilities"]),
                  "decidingSlices": json.dumps(slices), "classifiedBy": self._info.name,
                  "classifiedByVersion": self._info.weights_sha256, "version": medmae.__version__,
                  "date": datetime.now(UTC).isoformat(timespec="seconds")}
        for node in (volumeNode, table):
            for name, value in values.items():
                node.SetAttribute(f"MedMAE.{name}", value)
        return Classification(facts["label"], dict(facts["probabilities"]), slices, bool(facts["calibrated"]), table)


def _table(volumeNode: slicer.vtkMRMLVolumeNode, probabilities: Mapping[str, float],
           slices: Mapping[str, tuple[str, int]]) -> slicer.vtkMRMLTableNode:
    name = slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} classification")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    columns = [(_("Class"), vtk.vtkStringArray()), (_("Probability"), vtk.vtkDoubleArray()),
               (_("Deciding slice"), vtk.vtkStringArray())]
    for title, column in columns:
        column.SetName(title)
        node.AddColumn(column)
    for label, probability in sorted(probabilities.items(), key=lambda item: -item[1]):
        axis, index = slices.get(label, ("", ""))
        row = node.AddEmptyRow()
        for position, text in enumerate((label, f"{probability:.4f}", f"{axis} {index}".strip())):
            node.SetCellText(row, position, text)
    placeBeside(node, volumeNode)
    return node
