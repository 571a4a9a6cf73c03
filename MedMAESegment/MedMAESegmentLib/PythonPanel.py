"""The part of the panel that says with which Python is computed; needs the Slicer application."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Doctor import DoctorReport, examine, useInterpreter
from MedMAESegmentLib.Interpreter import chosenInterpreter, saveInterpreter, slicersInterpreter
from MedMAESegmentLib.WorkerSession import applicationWorker


class PythonPanel:
    """Chooses another Python or Slicer's own again, and shows what ``medmae doctor`` says about it.

    Needs the widgets pythonLabel, anotherPythonButton, slicersPythonButton, doctorButton and doctorText.
    """

    def __init__(self, ui: SimpleNamespace, isIdle: Callable[[], bool]) -> None:
        """`isIdle` says whether no computation is under way, so that the worker may be ended."""
        self._ui, self._isIdle = ui, isIdle
        ui.anotherPythonButton.clicked.connect(self.onAnotherPython)
        ui.slicersPythonButton.clicked.connect(self.onSlicersPython)
        ui.doctorButton.clicked.connect(self.onDoctor)
        ui.doctorText.visible = False
        self._update()

    def onAnotherPython(self, clicked: bool = False) -> None:
        """Ask for another Python and use it if it can compute."""
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("The program python of an environment that has MedMAE's packages"))
        path = path[0] if isinstance(path, tuple) else path  # PySide gives the filter too
        if not path:
            return
        with slicer.util.tryWithErrorDisplay(_("MedMAE cannot compute with this Python."), waitCursor=True):
            self._show(useInterpreter(path))
        self._changed()

    def onSlicersPython(self, clicked: bool = False) -> None:
        """Compute with Slicer's own Python again."""
        saveInterpreter(slicersInterpreter())
        self._ui.doctorText.visible = False
        self._changed()

    def onDoctor(self, clicked: bool = False) -> None:
        """Examine the Python that computes."""
        self._ui.doctorButton.enabled = False  # the application stays alive, and so do its buttons
        try:
            with slicer.util.tryWithErrorDisplay(_("This Python could not be examined."), waitCursor=True):
                self._show(examine(chosenInterpreter()))
        finally:
            self._ui.doctorButton.enabled = True

    def _show(self, report: DoctorReport) -> None:
        self._ui.doctorText.setPlainText(report.text)
        self._ui.doctorText.visible = True

    def _changed(self) -> None:
        if self._isIdle():
            applicationWorker().close()  # the next computation starts it with the Python that is chosen now
        self._update()

    def _update(self) -> None:
        python = chosenInterpreter()
        self._ui.pythonLabel.text = _("Slicer's own") if python.isSlicers else python.executable
        self._ui.slicersPythonButton.enabled = not python.isSlicers
