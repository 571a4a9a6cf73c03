"""The table of the scores of a run's cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from MedMAETrainLib.Project import Project
from MedMAETrainLib.RunScores import CROSS_VALIDATION, CaseScore, RunScores

CASE, SCORE = range(2)
MOST_ROWS = 200  # the worst; who wants all has the report
MOST_ROWS_SEEN = 8  # at once
HEADER_HEIGHT, ROW_HEIGHT = 24, 22
_NUMBER = qt.Qt.AlignRight | qt.Qt.AlignVCenter


class RunCases:
    """Shows the cases of the fields ``runCases...`` of a page, the worst first.

    ``opened(caseId)`` comes on a click on a case of the project that is open.
    """

    def __init__(self, ui: Any, project: Callable[[], Project | None]) -> None:
        self.opened = Signal()
        self.ui = ui
        self._project = project
        self._shown: Any = None
        self._cases: tuple[CaseScore, ...] = ()
        self._isOurs = False
        table = ui.runCasesTable
        table.setColumnCount(2)
        header = table.horizontalHeader()
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setStretchLastSection(False)
        header.setSectionResizeMode(CASE, qt.QHeaderView.Stretch)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header.setFixedHeight(HEADER_HEIGHT)
        table.cellClicked.connect(self._onClicked)

    def show(self, scores: RunScores | None, projectUid: str | None = None) -> None:
        """Show these scores of a run that learns from a project."""
        project = self._project()
        names = {case.id: case.source.name for case in project.cases} if project is not None else {}
        isOurs = project is not None and project.uid == projectUid
        shown = (scores, isOurs, names if isOurs else None)
        if shown == self._shown:
            return
        self._shown, self._isOurs = shown, isOurs
        for widget in (self.ui.runCasesLabel, self.ui.runCasesTable):
            widget.visible = scores is not None
        self._cases = scores.cases[:MOST_ROWS] if scores is not None else ()
        if scores is not None:
            self.ui.runCasesLabel.text = summaryText(scores)
            self._fill(scores, names if isOurs else {})

    def _fill(self, scores: RunScores, names: dict[str, str]) -> None:
        table = self.ui.runCasesTable
        table.setHorizontalHeaderLabels([_("Case, the worst first"), scores.name])
        table.horizontalHeaderItem(SCORE).setTextAlignment(_NUMBER)
        table.setRowCount(len(self._cases))
        for row, case in enumerate(self._cases):
            name = names.get(case.case, "")
            isAlone = list(names.values()).count(name) == 1  # there may be another case of that name
            title = case.case if not name else name if isAlone else f"{name} ({case.case})"
            for column, text in ((CASE, title), (SCORE, _number(case.value))):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(asPlainHtml("\n".join([title, *_parts(case), self._hint(case)])))
                if column == SCORE:
                    item.setTextAlignment(_NUMBER)
                table.setItem(row, column, item)
        rows = min(len(self._cases), MOST_ROWS_SEEN)
        table.setFixedHeight(HEADER_HEIGHT + ROW_HEIGHT * rows + 4)

    def _hint(self, case: CaseScore) -> str:
        if not self._isOurs:
            return _("Open the project of this run to open its cases.")
        return _("Click to open this case.") if self._isThere(case) else _("It is no longer in the project.")

    def _isThere(self, case: CaseScore) -> bool:
        project = self._project()
        return self._isOurs and project is not None and any(one.id == case.case for one in project.cases)

    def _onClicked(self, row: int, column: int) -> None:
        if row < len(self._cases) and self._isThere(self._cases[row]):
            self.opened.emit(self._cases[row].case)


def summaryText(scores: RunScores) -> str:
    """What a run is judged by: ``Mean Dice 0.812 of 5 cases; each was scored by a model that has not seen it.``"""
    name, value = scores.overall
    count = len(scores.cases)
    cases = _("one case") if count == 1 else _("{count} cases").format(count=count)
    text = _("{name} {value} of {cases}").format(name=name, value=_number(value), cases=cases)
    if scores.how == CROSS_VALIDATION:
        return _("{score}; each was scored by a model that has not seen it.").format(score=text)
    if not scores.isWhole:
        text = _("{name} {value} for validation, of which these cases are the worst.")
        return text.format(name=name, value=_number(value))
    return _("{score} for validation.").format(score=text)


def _parts(case: CaseScore) -> list[str]:
    return [f"{name}: {_number(value)}" for name, value in case.parts.items()]


def _number(value: float | None) -> str:
    return _("none") if value is None else f"{value:.3f}"
