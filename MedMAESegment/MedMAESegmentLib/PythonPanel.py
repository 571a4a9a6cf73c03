"""The part of the panel that says with which Python is computed; needs the Slicer application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Doctor import DoctorReport, examine, useInterpreter
from MedMAESegmentLib.Interpreter import chosenInterpreter, saveInterpreter, slicersInterpreter
from MedMAESegmentLib.Panel.Dialogs import errorsAreTold
from MedMAESegmentLib.WorkerSession import applicationWorker

UI_FILE = Path(__file__).resolve().parents[1] / "Resources" / "UI" / "PythonPanel.ui"


class PythonPanel:
    """Chooses another Python or Slicer's own again, and shows what ``medmae doctor`` says about it.

    Both modules show it; what one has chosen the other shows when it is `update`d.
    """

    def __init__(self, parentWidget: qt.QWidget, isIdle: Callable[[], bool]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `isIdle` says whether no computation is under way, so
        that the worker may be ended."""
        self._isIdle = isIdle
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        ui.anotherPythonButton.clicked.connect(self.onAnotherPython)
        ui.slicersPythonButton.clicked.connect(self.onSlicersPython)
        ui.doctorButton.clicked.connect(self.onDoctor)
        ui.doctorText.visible = False
        self.update()

    def onAnotherPython(self, clicked: bool = False) -> None:
        """Ask for another Python and use it if it can compute."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("The program python of an environment that has MedMAE's packages"))
        path = path[0] if isinstance(path, tuple) else path  # PySide gives the filter too
        if not path:
            return
        with errorsAreTold(_("MedMAE cannot compute with this Python.")):
            self._show(useInterpreter(path))
        self._changed()

    def onSlicersPython(self, clicked: bool = False) -> None:
        """Compute with Slicer's own Python again."""
        saveInterpreter(slicersInterpreter())
        self.ui.doctorText.visible = False
        self._changed()

    def onDoctor(self, clicked: bool = False) -> None:
        """Examine the Python that computes."""
        self.ui.doctorButton.enabled = False  # the application stays alive, and so do its buttons
        try:
            with errorsAreTold(_("This Python could not be examined.")):
                self._show(examine(chosenInterpreter()))
        finally:
            self.ui.doctorButton.enabled = True

    def update(self) -> None:
        """Show which Python is chosen now."""
        python = chosenInterpreter()
        self.ui.pythonLabel.text = _("Slicer's own") if python.isSlicers else python.executable
        self.ui.slicersPythonButton.enabled = not python.isSlicers

    def _show(self, report: DoctorReport) -> None:
        self.ui.doctorText.setPlainText(report.text)
        self.ui.doctorText.visible = True

    def _changed(self) -> None:
        if self._isIdle():
            applicationWorker().close()  # the next computation starts it with the Python that is chosen now
        self.update()
