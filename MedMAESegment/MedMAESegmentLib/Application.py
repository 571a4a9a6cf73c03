"""The few things that the modules ask of the running application, which may also be the MRML library alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import slicer


def processEvents() -> None:
    """Let the application redraw and react; does nothing where there is no event loop."""
    pump = getattr(getattr(slicer, "app", None), "processEvents", None)
    if pump is not None:
        pump()


def newTimer() -> Any:
    """A timer (qt.QTimer) that belongs to the application.

    Python may find in any thread that nobody holds the owner of a timer any more. Were the timer Python's, it would be
    deleted there, which Qt allows on the main thread only: an active one would later fire into freed memory.

    Raises:
        ImportError: there is no Qt, and so no event loop.
    """
    import qt

    return qt.QTimer(qt.QCoreApplication.instance())


def firstNode(*classNames: str) -> slicer.vtkMRMLNode | None:
    """The first node that a node selector of exactly these classes would list."""
    for className in classNames:
        for index in range(slicer.mrmlScene.GetNumberOfNodesByClass(className)):
            node = slicer.mrmlScene.GetNthNodeByClass(index, className)
            if node.GetClassName() in classNames and not node.GetHideFromEditors():
                return node
    return None


def newTemporaryFolder() -> Path:
    """A new, empty folder in the application's temporary folder; the caller removes it."""
    parent = getattr(getattr(slicer, "app", None), "temporaryPath", None)
    return Path(tempfile.mkdtemp(prefix="MedMAE-", dir=parent or None))
