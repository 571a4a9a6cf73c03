"""Run a model from within the Segment Editor, into the segmentation that is being edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from MedMAESegmentLib.EditorResult import EditorResult, LabelMapping
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.SegmentLogic import SegmentLogic
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _


class EditorRun:
    """One run at a time: hands the source volume over, follows the computation, applies the result.

    ``progressed(fraction, message)`` follows it; ``finished(names, error)`` comes once after a start that did not
    raise, with the names of the segments that were written, or with what went wrong.

    >>> run = EditorRun(SegmentLogic(), scriptedEffect.saveStateForUndo)
    >>> run.start(editorNode, "abdomen", LabelMapping())
    """

    def __init__(self, logic: SegmentLogic, saveState: Callable[[], Any]) -> None:
        """`saveState` saves the state of the segmentation for undo; called right before it is changed."""
        self.progressed, self.finished = Signal(), Signal()
        self.logic, self._saveState = logic, saveState
        self._job: Any = None
        self._isStarting = False

    @property
    def isRunning(self) -> bool:
        """Whether a model is at work."""
        return self._isStarting or self._job is not None

    def start(self, editorNode: slicer.vtkMRMLSegmentEditorNode, model: str, mapping: LabelMapping,
              device: str = "auto") -> Any:
        """Start a model on the source volume of an editor; returns the job that can be waited for.

        Raises:
            ValueError: nothing is edited, or a model is at work already; also what `SegmentLogic.segment` raises.
        """
        volumeNode, segmentationNode = editorNode.GetSourceVolumeNode(), editorNode.GetSegmentationNode()
        if volumeNode is None or segmentationNode is None:
            raise ValueError(_("Choose a segmentation and a source volume in the Segment Editor first."))
        if self.isRunning:
            raise ValueError(_("A model is at work already. Wait for it, or cancel it."))
        self._isStarting = True
        try:
            job = self.logic.segment(volumeNode, model, device=device, progressCallback=self.progressed.emit,
                                      waitForCompletion=False)
        finally:
            self._isStarting = False
        editor, edited = NodeReference(editorNode), NodeReference(segmentationNode)
        self._job = job
        job.finished.connect(lambda job: self._onFinished(job, editor, edited, mapping))
        return job

    def cancel(self) -> None:
        """End what is under way; the segmentation stays as it is."""
        self.logic.cancel()

    def _onFinished(self, job: Any, editor: NodeReference, edited: NodeReference, mapping: LabelMapping) -> None:
        self._job = None
        names, error = [], job.error
        if job.result is not None:
            try:
                names = self._apply(job.result, editor.node, edited.node, mapping)
            except ValueError as problem:
                error = problem
            finally:
                _remove(job.result)
        self.finished.emit(names, error)

    def _apply(self, resultNode: slicer.vtkMRMLSegmentationNode, editorNode: slicer.vtkMRMLSegmentEditorNode | None,
               segmentationNode: slicer.vtkMRMLSegmentationNode | None, mapping: LabelMapping) -> list[str]:
        if editorNode is None or segmentationNode is None or editorNode.GetSegmentationNode() is not segmentationNode:
            raise ValueError(_("Another segmentation is being edited by now, so the result was discarded. Run the "
                               "model again."))
        self._saveState()
        return EditorResult(editorNode).apply(resultNode, mapping)


def _remove(node: slicer.vtkMRMLSegmentationNode) -> None:
    if node.GetDisplayNode() is not None:
        slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
    slicer.mrmlScene.RemoveNode(node)
