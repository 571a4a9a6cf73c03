"""The table of the cases of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from slicer.i18n import tr as _

from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.BatchCase import BatchCase
from MedMAESegmentLib.FollowedJob import duration
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from MedMAESegmentLib.Signal import Signal

NAME, STATE, TIME = range(3)
TIME_WIDTH = 54
ROWS_AT_ONCE = 100  # that are filled in before the application may react again


class CaseTable:
    """Shows one case a row: its name, with a check mark where cases can be left out, its state, and what it took.

    ``opened(index)`` comes on a double click, ``selected()`` and ``checked()`` when the user has changed these. Long
    lists are filled in little by little.
    """

    def __init__(self, table: qt.QTableWidget) -> None:
        self.opened, self.selected, self.checked = Signal(), Signal(), Signal()
        self._table = table
        self._cases: Sequence[BatchCase] = ()
        self._checks: list[bool] | None = None
        self._filled, self._isFilling = 0, False
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Image"), _("State"), _("Time")])
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Stretch)
        header.setSectionResizeMode(TIME, qt.QHeaderView.Fixed)
        header.resizeSection(TIME, TIME_WIDTH)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(22)
        self._timer = newTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._fill)
        table.cellDoubleClicked.connect(lambda row, column: self.opened.emit(row))
        table.itemSelectionChanged.connect(self.selected.emit)
        table.itemChanged.connect(self._onItemChanged)

    def show(self, cases: Sequence[BatchCase], checks: Sequence[bool] | None = None) -> None:
        """Show other cases; `checks`: which are chosen, None: nothing can be left out."""
        self._cases, self._checks = cases, list(checks) if checks is not None else None
        self._filled = 0
        self._table.setRowCount(0)
        self._table.setRowCount(len(cases))
        self._fill()
        if self._filled < len(cases):
            self._timer.start()

    def update(self, index: int) -> None:
        """Show a case as it is now."""
        if index < self._filled:
            self._fillRow(index)

    def scrollTo(self, index: int) -> None:
        """Bring a case into view."""
        if index < self._filled:
            self._table.scrollToItem(self._table.item(index, NAME))

    def setCheckable(self, isCheckable: bool) -> None:
        """Whether the user may leave cases out now."""
        self._isFilling = True
        for index in range(self._filled if self._checks is not None else 0):
            self._table.item(index, NAME).setFlags(_flags(isCheckable))
        self._isFilling = False

    def stop(self) -> None:
        """Fill in nothing more: the table is about to go."""
        self._timer.stop()

    @property
    def checks(self) -> list[bool]:
        """Which cases are chosen."""
        return list(self._checks) if self._checks is not None else [True] * len(self._cases)

    @property
    def selection(self) -> int | None:
        """The index of the selected case."""
        row = self._table.currentRow()
        return row if 0 <= row < len(self._cases) and self._table.selectedItems() else None

    def _fill(self) -> None:
        end = min(self._filled + ROWS_AT_ONCE, len(self._cases))
        first, self._filled = self._filled, end
        for index in range(first, end):
            self._fillRow(index)
        if end == len(self._cases):
            self._timer.stop()

    def _fillRow(self, index: int) -> None:
        case = self._cases[index]
        time = duration(case.seconds) if case.seconds is not None else ""
        texts = [case.name, stateText(case), time]
        toolTip = asPlainHtml(f"{case.name}\n{texts[STATE]}")
        self._isFilling = True
        for column, text in enumerate(texts):
            item = self._table.item(index, column)
            if item is None:
                item = qt.QTableWidgetItem()
                self._table.setItem(index, column, item)
                if column == NAME and self._checks is not None:
                    item.setFlags(_flags(True))
                    item.setCheckState(qt.Qt.Checked if self._checks[index] else qt.Qt.Unchecked)
            item.setText(text.split("\n")[0])
            item.setToolTip(toolTip)
        self._isFilling = False

    def _onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        if self._isFilling or self._checks is None or item.column() != NAME:
            return
        self._checks[item.row()] = item.checkState() == qt.Qt.Checked
        self.checked.emit()


def stateText(case: BatchCase) -> str:
    """The state of a case in words, with how far it is or why it failed."""
    if case.wasDoneBefore and case.state == "done":
        return _("Done before")
    state = {"waiting": _("Waiting"), "running": _("Running"), "done": _("Done"), "failed": _("Failed"),
             "cancelled": _("Cancelled")}[case.state]
    return f"{state}: {case.message}" if case.message else state


def _flags(isCheckable: bool) -> qt.Qt.ItemFlags:
    flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
    return flags | qt.Qt.ItemIsUserCheckable if isCheckable else flags
