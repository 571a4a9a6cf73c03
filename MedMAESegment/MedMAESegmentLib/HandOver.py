"""The second in which nodes are written to files: the application stays alive, and anything may happen meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import slicer

from MedMAESegmentLib.Application import processEvents
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.RunJob import RunCancelled


class HandOver:
    """Called between the parts that are written; ends the writing once it has become pointless.

    >>> handOver = HandOver([volumeNode])
    >>> writeVolume(volumeNode, path, between=handOver)
    """

    def __init__(self, nodes: Sequence[slicer.vtkMRMLNode]) -> None:
        self._names = [node.GetName() for node in nodes]
        self._references = [NodeReference(node) for node in nodes]
        self._isCancelled = False

    def cancel(self) -> None:
        """End the writing at its next pause."""
        self._isCancelled = True

    def __call__(self) -> None:
        """Let the application react.

        Raises:
            RunCancelled: somebody has cancelled.
            ValueError: a node has left the scene.
        """
        processEvents()
        if self._isCancelled:
            raise RunCancelled("Cancelled.")
        for name, reference in zip(self._names, self._references, strict=True):
            if reference.node is None:
                raise ValueError(f"{name} was removed from the scene while it was being handed over. Load it and "
                                 "start again.")
