"""The part of the panel that says which project is open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Signal import Signal

from medmae.errors import BadInput
from MedMAETrainLib.Project import Project

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "ProjectSection.ui"


class ProjectSection:
    """Opens projects; ``changed()`` comes when another one is open, none is, or the one that is has changed."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any) -> None:
        """`parentWidget` has a layout, at whose end this goes; `logic` is a `MedMAETrainLogic`."""
        self.changed = Signal()
        self._logic = logic
        self.problem = ""  # why the last one could not be opened
        self._project: Project | None = None
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)

    @property
    def project(self) -> Project | None:
        """The project that is open."""
        return self._project

    @property
    def folder(self) -> str:
        """The folder of the project that is open, "" for none. Setting it opens the one there."""
        return str(self._project.path) if self._project is not None else ""

    @folder.setter
    def folder(self, folder: str) -> None:
        if folder == self.folder:
            return
        try:
            self._take(self._logic.openProject(folder) if folder else None)
        except BadInput as error:
            self.problem = self.ui.projectNoProjectLabel.text = str(error)

    def cleanup(self) -> None:
        """The module is closed."""
        self._take(None)

    def _take(self, project: Project | None) -> None:
        if self._project is not None:
            self._project.changed.disconnect(self.changed.emit)
        self._project = project
        if project is not None:
            project.changed.connect(self.changed.emit)
        self.changed.emit()
