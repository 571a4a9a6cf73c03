"""The tab "Runs": what is computed, and what has come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.run_folder import RunFolder
from MedMAETrainLib.Panel.RunActions import RunActions
from MedMAETrainLib.Panel.RunComparison import RunComparison, comparedRows, uniqueNames
from MedMAETrainLib.Panel.RunCurves import RunCurves
from MedMAETrainLib.Panel.RunDetails import RunDetails
from MedMAETrainLib.Panel.RunTable import RunTable
from MedMAETrainLib.Project import Project
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunScores import scoresOf
from MedMAETrainLib.RunSettings import settingsOf

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "RunsPage.ui"
LOOK_EVERY_MS = 1000
UPDATE_AFTER_MS = 50


class RunsPage:
    """Shows runs; ``openCase(caseId)`` and ``useModel(name)`` come when the user asks for these.

    While the page is seen it looks at the folders of the runs once a second; the histories of those that are selected
    or drawn are read in short turns.
    """

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self.useModel = Signal()
        self.comparison: RunComparison | None = None
        self._logic, self._project = logic, project
        self._isUpdating = False
        self._widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(self._widget)
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self.table = RunTable(self.ui.runsTable)
        self.details = RunDetails(self.ui, project)
        self.openCase = self.details.cases.opened
        self.actions = RunActions(self.ui, logic, lambda: self.table.selection)
        self.curves = RunCurves()
        self._lookTimer, self._readTimer, self._updateTimer = newTimer(), newTimer(), newTimer()
        self._lookTimer.setInterval(LOOK_EVERY_MS)
        self._lookTimer.timeout.connect(self._onLook)
        self._readTimer.setInterval(0)
        self._readTimer.timeout.connect(self._onRead)
        self._updateTimer.setInterval(UPDATE_AFTER_MS)
        self._updateTimer.setSingleShot(True)
        self._updateTimer.timeout.connect(self._onLook)
        self.table.selected.connect(self._onSelected)
        self.table.opened.connect(lambda _runId: self.onCurves())
        self.actions.done.connect(self.update)
        self.ui.runsProjectCheckBox.toggled.connect(lambda _isOn: self.update())
        self.ui.runCurvesButton.clicked.connect(self.onCurves)
        self.ui.runCompareButton.clicked.connect(self.onCompare)
        self.ui.runUseButton.clicked.connect(self.onUse)
        logic.runsChanged.connect(self._onRunsChanged)
        self._lookTimer.start()
        self.update()

    def setParameters(self, parameters: Any) -> None:
        """Another scene, or none: runs do not depend on it, but where their chart is."""
        if parameters is not None:
            self.update()

    def cleanup(self) -> None:
        """The module is closed; runs go on."""
        self._logic.runsChanged.disconnect(self._onRunsChanged)
        for timer in (self._lookTimer, self._readTimer, self._updateTimer):
            timer.stop()
        self.table.stop()
        self.actions.cleanup()
        self.curves.cleanup()
        if self.comparison is not None:
            self.comparison.onClose()

    def show(self, run: Any) -> None:
        """Show a run, by its job or id."""
        key = run if isinstance(run, str) else run.id
        if self._isFiltered and all(entry.id != key for entry in self._logic.runs(self._project())):
            self.ui.runsProjectCheckBox.setChecked(False)
        self.update()
        self.table.select(key)

    def update(self) -> None:
        """Show what is there now; what is selected stays so."""
        if self._isUpdating:  # the application lives on while something is done, and may come back here
            return
        self._isUpdating = True
        try:
            everything = self._logic.runs()
            entries = self._logic.runs(self._project()) if self._isFiltered else everything
            self.table.show(entries)
            self.actions.removeEnded(entries)
            self.ui.runsProjectCheckBox.visible = self._project() is not None
            self.ui.runsTable.visible, self.ui.runsEmptyLabel.visible = bool(entries), not entries
            self.ui.runsEmptyLabel.text = _whyEmpty(bool(everything))
            self.curves.forget(everything)
        finally:
            self._isUpdating = False
        self._readTimer.start()
        self._showSelection()

    def onCurves(self, clicked: bool = False) -> None:
        """Draw the curves of the selected runs in the plot view."""
        self.curves.show(self.table.selection)
        self._readTimer.start()

    def onCompare(self, clicked: bool = False) -> None:
        """Draw the selected runs in one chart, and tell in what they differ."""
        entries = self.table.selection
        if len(entries) < 2:
            return
        self.onCurves()
        while self.curves.read(None):
            slicer.app.processEvents()
        self.curves.update()
        histories = [self.curves.history(entry) for entry in entries]
        runs = [RunFolder(entry.folder) for entry in entries]
        scores = [scoresOf(run, history.validation) for run, history in zip(runs, histories, strict=True)]
        if self.comparison is not None:
            self.comparison.onClose()
        self.comparison = RunComparison(comparedRows(entries, histories, scores, [settingsOf(run) for run in runs]),
                                        uniqueNames(entries))
        self.comparison.show()

    def onUse(self, clicked: bool = False) -> None:
        """Go to MedMAE Segment with the model of the selected run."""
        self.useModel.emit(self.table.selection[0].model)

    @property
    def _isFiltered(self) -> bool:
        """Whether runs of the open project alone are listed."""
        return self._project() is not None and bool(self.ui.runsProjectCheckBox.checked)

    def _showSelection(self) -> None:
        entries, one = self.table.selection, self._one
        self.details.show(entries, self.curves.history(one) if one is not None else None)
        self.actions.update()
        compare, curves = self.ui.runCompareButton, self.ui.runCurvesButton
        compare.enabled, curves.enabled = len(entries) > 1, bool(entries)
        compare.toolTip = (_("Draw their curves in one chart, and tell in what they differ.") if compare.enabled
                           else _("Select two or more runs, with Ctrl or Shift."))
        curves.toolTip = (_("Draw loss, learning rate and scores in Slicer's plot view, also while the run trains. A "
                            "double click does the same.") if curves.enabled else _("Select a run."))

    @property
    def _one(self) -> RunEntry | None:
        """The run that is selected, where it is a single one."""
        entries = self.table.selection
        return entries[0] if len(entries) == 1 else None

    def _onSelected(self) -> None:
        if self._one is not None:
            self.curves.follow(self._one)
        self._readTimer.start()
        self._showSelection()

    def _onRunsChanged(self) -> None:
        """Look soon: there may be several changes at once."""
        if not self._updateTimer.isActive():
            self._updateTimer.start()

    def _onLook(self) -> None:
        if self._widget.isVisible():
            self.update()

    def _onRead(self) -> None:
        """Read a little of the histories; what they tell is shown once there is no more."""
        if self.curves.read(self._one):
            return
        self._readTimer.stop()
        self.curves.update()
        self._showSelection()


def _whyEmpty(hasOthers: bool) -> str:
    if hasOthers:
        return _("No run learns from this project yet; others are there. Start one in the tab Train.")
    return _("No run yet. Start one in the tab Train; it stands here until you remove it, and goes on when Slicer is "
             "closed.")
