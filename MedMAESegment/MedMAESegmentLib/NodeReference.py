"""Remember a node of the scene while something else goes on: the user may delete it at any time."""

from __future__ import annotations

import slicer
import vtk


class NodeReference:
    """One node, known by the object itself: an ID is given away again after the scene was closed.

    The node is not kept alive.
    """

    def __init__(self, node: slicer.vtkMRMLNode) -> None:
        self._reference = vtk.vtkWeakReference()
        self._reference.Set(node)

    @property
    def node(self) -> slicer.vtkMRMLNode | None:
        """The node; None once it has left the scene."""
        node = self._reference.Get()
        return node if node is not None and node.GetScene() is slicer.mrmlScene else None
