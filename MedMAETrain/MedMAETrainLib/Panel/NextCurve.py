"""The part of the page that tells whether more labels help: advice, numbers and chart."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import qt
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from slicer.i18n import tr as _

from MedMAETrainLib.Curves import COLORS, Chart, Line, Table
from MedMAETrainLib.LearningCurve import CurvePoint, LearningCurve
from MedMAETrainLib.Panel.NextTable import ROW_HEIGHT, fitHeight
from MedMAETrainLib.Project import Project

LOOK_EVERY_MS = 50
_NUMBER = qt.Qt.AlignRight | qt.Qt.AlignVCenter
_WIDTHS = {1: 48, 2: 56, 3: 108}


class NextCurve:
    """Reads the curve of a project in a thread, and shows it. Needs the widgets nextAdviceLabel, nextReasonLabel,
    nextCurveTable and nextChartButton."""

    def __init__(self, ui: SimpleNamespace, read: Callable[[Project], LearningCurve]) -> None:
        """`read` gives the curve of a project; it is called in a thread."""
        self._ui, self._read = ui, read
        self._task: BackgroundTask[LearningCurve] | None = None
        self._curve: LearningCurve | None = None
        self._key: Any = None
        self._chart = Chart(_("Score by annotated cases"), xTitle=_("Annotated cases"), yTitle=_("Score"))
        self._timer = newTimer()
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._onTimer)
        table = ui.nextCurveTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Model"), _("Cases"), _("Score"), _("Measured on")])
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        for column, width in _WIDTHS.items():
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            header.resizeSection(column, width)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.visible = False
        ui.nextChartButton.clicked.connect(self.onChart)

    @property
    def isReading(self) -> bool:
        """Whether what is shown is about to change."""
        return self._task is not None

    def update(self, project: Project, again: bool = False) -> None:
        """Show the curve of a project; `again`: also when its runs and models are the same."""
        key = (project.uid, project.runs, project.models)
        if self._task is not None or (key == self._key and not again):
            return
        self._key = key
        self._task = BackgroundTask(lambda: self._read(project))
        self._timer.start()

    def stop(self) -> None:
        """The module is closed."""
        self._timer.stop()
        self._chart.remove()

    def onChart(self, clicked: bool = False) -> None:
        """Draw the curve in the plot view."""
        if self._curve is not None and self._curve.points:
            self._chart.update(chartTables(self._curve))
            self._chart.show()

    def _onTimer(self) -> None:
        if self._task is None or not self._task.isOver:
            return
        self._timer.stop()
        task, self._task = self._task, None
        self._curve = task.result()
        self._show(self._curve)
        if self._chart.node is not None:
            self._chart.update(chartTables(self._curve))

    def _show(self, curve: LearningCurve) -> None:
        ui, table = self._ui, self._ui.nextCurveTable
        ui.nextAdviceLabel.text = curve.advice.text
        ui.nextReasonLabel.text = "\n".join([curve.advice.reason, *curve.problems])
        table.setRowCount(len(curve.points))
        for row, point in enumerate(reversed(curve.points)):
            texts = [point.model, str(point.cases), f"{point.score or 0:.3f}", measuredOn(point)]
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(asPlainHtml(_("{model}, {date}\nStarted from: {encoder}\n{scored}").format(
                    model=point.model, date=point.created[:16].replace("T", " "), encoder=point.encoder,
                    scored=texts[3])))
                if column in (1, 2):
                    item.setTextAlignment(_NUMBER)
                table.setItem(row, column, item)
        fitHeight(table, len(curve.points))
        table.visible = bool(curve.points)
        ui.nextChartButton.enabled = bool(curve.points)


def measuredOn(point: CurvePoint) -> str:
    """On what a model was measured, in a few words."""
    if not point.scored:
        return _("unknown cases")
    text = _("{count} cross-val.") if point.how == "cross-validation" else _("{count} validation")
    return text.format(count=len(point.scored))


def chartTables(curve: LearningCurve) -> list[Table]:
    """The lines of the chart: only what was measured on the same cases is joined."""
    return [Table(f"series {number}", np.array([point.cases for point in line.points], float), (
        Line(f"{line.title} ({number})" if len(curve.series) > 1 else line.title,
             np.array([point.score for point in line.points], float), COLORS[(number - 1) % len(COLORS)],
             isPoints=True),)) for number, line in enumerate(curve.series, 1)]
