"""The tab "Train": what to start from, where to compute, and starting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Signal import Signal

from MedMAETrainLib.Project import Project

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "TrainPage.ui"


class TrainPage:
    """Starts runs; ``started(job)`` comes when one was."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self.started = Signal()
        self._logic, self._project, self._parameters = logic, project, None
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.update()

    def setParameters(self, parameters: Any) -> None:
        """Show the choices of a parameter node; None: another module is open, or the scene is being closed."""
        self._parameters = parameters
        self.update()

    def update(self) -> None:
        """Show what is there now."""
        self.ui.trainNoProjectLabel.visible = self._project() is None

    def cleanup(self) -> None:
        """The module is closed."""

    def startFrom(self, name: str) -> None:
        """Choose the encoder or model to start from."""
        if self._parameters is not None:
            self._parameters.startFrom = name
        self.update()
