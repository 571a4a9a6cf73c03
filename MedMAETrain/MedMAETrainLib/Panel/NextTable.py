"""The table of the cases in the order in which to annotate them."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.NextTexts import caseName, stateText
from MedMAETrainLib.Ranking import RankedCase

POSITION, NAME, SCORE, STATE = range(4)
MOST_ROWS = 200  # whoever annotates that many ranks again before
ROW_HEIGHT = 22
_MOST_SEEN, _HEADER_HEIGHT = 8, 28
_BAR = qt.QSize(44, 10)
_WIDTHS = {POSITION: 32, SCORE: 94, STATE: 98}


class NextTable:
    """Shows place, name, score and state of cases; ``opened(caseId)`` comes on a double click, ``selected()`` when
    another case is selected."""

    def __init__(self, table: qt.QTableWidget) -> None:
        self.opened, self.selected = Signal(), Signal()
        self._table = table
        self._shown: tuple = ()
        self._cases: list[str] = []
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("#"), _("Case"), _("Score"), _("State")])
        header = table.horizontalHeader()
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        for column, width in _WIDTHS.items():
            header.setSectionResizeMode(column, qt.QHeaderView.Fixed)
            header.resizeSection(column, width)
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        header.setHighlightSections(False)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.setIconSize(_BAR)
        table.horizontalHeaderItem(SCORE).setToolTip(_("Higher is more useful to annotate; comparable in one order "
                                                       "only."))
        table.cellDoubleClicked.connect(self._onDoubleClicked)
        table.itemSelectionChanged.connect(self.selected.emit)

    @property
    def selection(self) -> str | None:
        """The id of the selected case."""
        row = self._table.currentRow()
        return self._cases[row] if 0 <= row < len(self._cases) and self._table.selectedItems() else None

    def show(self, ranked: Sequence[RankedCase]) -> None:
        """Show these cases, the first ones of many; cheap where nothing has changed."""
        rows = tuple((one.case.id, str(one.position), caseName(one.case), f"{one.score:.3f}", stateText(one.case),
                      round(one.share, 3)) for one in ranked[:MOST_ROWS])
        if rows == self._shown:
            return
        chosen, self._shown = self.selection, rows
        self._cases = [row[0] for row in rows]
        table = self._table
        table.clearSelection()
        table.setRowCount(len(rows))
        for number, (_identity, *texts, share) in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(asPlainHtml(f"{texts[NAME]}\n{texts[STATE]}"))
                if column == POSITION:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                elif column == SCORE:
                    item.setIcon(_bar(share))
                table.setItem(number, column, item)
        fitHeight(table, len(rows))
        if chosen in self._cases:
            table.selectRow(self._cases.index(chosen))

    def _onDoubleClicked(self, row: int, _column: int) -> None:
        self.opened.emit(self._cases[row])


def fitHeight(table: qt.QTableWidget, rows: int) -> None:
    """Make a table as high as its rows, of many only some of which are seen at a time."""
    table.setFixedHeight(_HEADER_HEIGHT + ROW_HEIGHT * min(max(rows, 1), _MOST_SEEN))


def _bar(share: float) -> qt.QIcon:
    """A bar as long as the share, which is from 0 to 1."""
    pixmap = qt.QPixmap(_BAR)
    pixmap.fill(qt.QColor(0, 0, 0, 30))
    painter = qt.QPainter(pixmap)
    painter.fillRect(0, 0, max(1, round(share * _BAR.width())), _BAR.height(), qt.QColor(46, 124, 186))
    painter.end()
    return qt.QIcon(pixmap)
