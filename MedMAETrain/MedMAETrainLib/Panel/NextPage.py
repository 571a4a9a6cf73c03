"""The tab "Next case": which case to annotate next, and whether more are likely to help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Signal import Signal

from MedMAETrainLib.Project import Project

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "NextPage.ui"


class NextPage:
    """``openCase(caseId, model)`` and ``finetuneFrom(modelName)`` come when the user asks for these."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self.openCase, self.finetuneFrom = Signal(), Signal()
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
        self.ui.nextNoProjectLabel.visible = self._project() is None

    def cleanup(self) -> None:
        """The module is closed."""
