"""The tab "Cases": the images of the project and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from MedMAETrainLib.Project import Project

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "CasesPage.ui"


class CasesPage:
    """Shows the cases and opens them."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
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
        self.ui.casesNoProjectLabel.visible = self._project() is None

    def cleanup(self) -> None:
        """The module is closed."""

    def open(self, caseId: str) -> None:
        """Bring a case into the scene, and into the Segment Editor."""

    def save(self) -> None:
        """Save the open case back into the project."""
