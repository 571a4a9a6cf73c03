"""The table of runs."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.RunTexts import kindText, startedText, stateText, timeText, toolTip
from MedMAETrainLib.RunEntry import RunEntry

NAME, STATE, PROGRESS, STARTED = range(4)
WIDTHS = {STATE: 88, PROGRESS: 62, STARTED: 56}
ROW_HEIGHT = 40
ROWS_AT_ONCE = 5  # that are filled in before the application may react again


class RunTable:
    """Shows one run a row, and keeps what is selected while rows come, change and go.

    ``selected()`` comes when the user, or the end of a run that was selected, has changed the selection;
    ``opened(id)`` on a double click. Long lists are filled in little by little.
    """

    def __init__(self, table: qt.QTableWidget) -> None:
        self.selected, self.opened = Signal(), Signal()
        self._table = table
        self._entries: dict[str, RunEntry] = {}
        self._rows: list[str] = []  # the ids, from the top
        self._todo: list[RunEntry] = []
        self._next = 0  # of those to do
        self._wanted: str | None = None  # the run that is to be selected
        self.bars: dict[str, qt.QProgressBar] = {}
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Run"), _("State"), _("Progress"), _("Started")])
        header = table.horizontalHeader()
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        header.setHighlightSections(False)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column, width in WIDTHS.items():
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            header.resizeSection(column, width)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self._timer = newTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._fill)
        table.itemSelectionChanged.connect(self.selected.emit)
        table.cellDoubleClicked.connect(lambda row, column: self.opened.emit(self._rows[row]))

    @property
    def entries(self) -> list[RunEntry]:
        """The runs, from the top, as far as they are filled in."""
        return [self._entries[key] for key in self._rows]

    @property
    def selection(self) -> list[RunEntry]:
        """The selected runs, from the top."""
        rows = sorted({item.row() for item in self._table.selectedItems()})
        return [self._entries[self._rows[row]] for row in rows if row < len(self._rows)]

    def show(self, entries: Sequence[RunEntry]) -> None:
        """Show these runs, the first at the top."""
        wanted = {entry.id for entry in entries}
        for row in range(len(self._rows) - 1, -1, -1):
            if self._rows[row] not in wanted:
                self._take(row)
        self._todo, self._next = list(entries), 0
        if not self._timer.isActive():
            self._fill()

    def select(self, key: str) -> None:
        """Select one run and bring it into view, as soon as it is filled in."""
        self._wanted = key
        self._selectWanted()

    def stop(self) -> None:
        """Fill in nothing more: the table is about to go."""
        self._timer.stop()

    def _fill(self) -> None:
        """Go down the list: rows that are right are brought up to date, those that are missing are made."""
        filled = 0
        while self._next < len(self._todo) and filled < ROWS_AT_ONCE:
            row, entry = self._next, self._todo[self._next]
            self._next += 1
            known = self._entries.get(entry.id)
            if known is not None and self._rows[row] == entry.id:
                if known != entry:
                    filled += 1
                    self._entries[entry.id] = entry
                    self._fillRow(row, entry)
                continue
            wasSelected = known is not None and self._take(self._rows.index(entry.id))
            filled += 1
            self._table.insertRow(row)
            self._rows.insert(row, entry.id)
            self._entries[entry.id] = entry
            self._fillRow(row, entry)
            if wasSelected:
                for column in range(self._table.columnCount):
                    self._table.item(row, column).setSelected(True)
        self._selectWanted()
        if self._next == len(self._todo):
            self._timer.stop()
            self._wanted = None
        elif not self._timer.isActive():
            self._timer.start()

    def _selectWanted(self) -> None:
        if self._wanted not in self._entries:
            return
        row, self._wanted = self._rows.index(self._wanted), None
        self._table.selectRow(row)
        self._table.scrollToItem(self._table.item(row, NAME))

    def _take(self, row: int) -> bool:
        """Remove a row; whether it was selected."""
        wasSelected = self._table.item(row, NAME).isSelected()
        key = self._rows.pop(row)
        del self._entries[key]
        self.bars.pop(key, None)
        self._table.removeRow(row)
        return wasSelected

    def _fillRow(self, row: int, entry: RunEntry) -> None:
        status = entry.status
        texts = {NAME: f"{entry.name}\n{kindText(entry)}",
                 STATE: "\n".join(filter(None, (stateText(status), timeText(status)))),
                 PROGRESS: "", STARTED: startedText(entry)}
        tip = asPlainHtml(toolTip(entry))
        for column, text in texts.items():
            item = self._table.item(row, column)
            if item is None:
                item = qt.QTableWidgetItem()
                self._table.setItem(row, column, item)
            item.setText(text)
            item.setToolTip(tip)
        self._showBar(row, entry)

    def _showBar(self, row: int, entry: RunEntry) -> None:
        status, bar = entry.status, self.bars.get(entry.id)
        if not status.fraction and status.state != "running":
            if bar is not None:
                self._table.cellWidget(row, PROGRESS).hide()  # it goes a turn later
                self._table.removeCellWidget(row, PROGRESS)
                del self.bars[entry.id]
            return
        if bar is None:
            bar = self.bars[entry.id] = qt.QProgressBar()
            bar.setRange(0, 1000)
            bar.setFixedHeight(16)
            bar.setAlignment(qt.Qt.AlignCenter)
            bar.setValue(round(1000 * status.fraction))  # before it is seen: a bar that is seen paints itself at once
            around = qt.QFrame()  # which keeps it in the middle of the row
            layout = qt.QVBoxLayout()
            layout.setContentsMargins(3, 0, 3, 0)
            layout.addWidget(bar)
            around.setLayout(layout)
            self._table.setCellWidget(row, PROGRESS, around)
        bar.enabled = not status.isFinal
        bar.setValue(round(1000 * status.fraction))
