"""The list of models: one compact row of two lines each, searched and sorted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import qt
from slicer.i18n import tr as _

from MedMAESegmentLib.Panel import ModelFacts as facts
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from MedMAESegmentLib.Signal import Signal

NAME, SCORE, CASES, DATE = range(4)
_MOST_LETTERS = 60  # of the second line; the tool tip has all


@dataclass(frozen=True)
class Row:
    """What the list shows of a model; `fault` says why a damaged one cannot be used."""

    name: str
    texts: tuple[str, ...]
    toolTip: str
    search: str
    order: tuple[Any, ...]
    fault: str = ""


class ModelList:
    """Fills a QTreeWidget; `selected` is emitted with a name, or "", when the user selects a row."""

    def __init__(self, tree: Any) -> None:
        self.selected = Signal()
        self._tree = tree
        self._rows: list[Row] = []
        self._items: dict[str, Any] = {}
        self._search, self._column, self._isDescending = "", NAME, False
        tree.setHeaderLabels([_("Model"), _("Score"), _("Cases"), _("Date")])
        header = tree.header()
        header.setStretchLastSection(False)
        for column in (SCORE, CASES, DATE):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(NAME, qt.Qt.AscendingOrder)
        header.sectionClicked.connect(self.onSectionClicked)
        tree.itemSelectionChanged.connect(self.onSelectionChanged)

    def fill(self, models: Mapping[str, Any], damaged: Mapping[str, str]) -> None:
        """Show these models; what was selected stays so where it is still there."""
        rows = [_rowOf(name, info) for name, info in models.items()]
        rows += [_damagedRow(name, fault) for name, fault in damaged.items()]
        if rows != self._rows:
            self._rows = rows
            self._build()

    def search(self, text: str) -> int:
        """Show only rows that have every word of `text`; how many there are."""
        self._search = text
        words = facts.folded(text).split()
        found = 0
        for row in self._rows:
            isFound = all(word in row.search for word in words)
            self._items[row.name].setHidden(not isFound)
            found += isFound
        if self.selectedName:
            self._tree.scrollToItem(self._items[self.selectedName])
        return found

    def select(self, name: str) -> None:
        """Select a row and bring it into view, or no row; emits nothing."""
        wasBlocked = self._tree.blockSignals(True)
        self._tree.clearSelection()
        if name in self._items:
            self._tree.setCurrentItem(self._items[name])
            self._tree.scrollToItem(self._items[name])
        self._tree.blockSignals(wasBlocked)

    @property
    def selectedName(self) -> str:
        """The name of the selected row, or ""."""
        selected = self._tree.selectedItems()
        return str(selected[0].data(NAME, qt.Qt.UserRole)) if selected else ""

    def onSelectionChanged(self) -> None:
        """Tell what is selected now."""
        self.selected.emit(self.selectedName)

    def onSectionClicked(self, column: int) -> None:
        """Sort by a column; a second click turns the order round."""
        # Scores, cases and dates are wanted best, most and newest first.
        self._isDescending = (not self._isDescending if column == self._column else column in (SCORE, CASES, DATE))
        self._column = column
        self._tree.header().setSortIndicator(
            column, qt.Qt.DescendingOrder if self._isDescending else qt.Qt.AscendingOrder)
        self._build()

    def _build(self) -> None:
        selected = self.selectedName
        wasBlocked = self._tree.blockSignals(True)
        self._tree.clear()
        self._items = {}
        for row in _sorted(self._rows, lambda row: row.order[self._column], self._isDescending):
            item = self._items[row.name] = qt.QTreeWidgetItem()
            for column, text in enumerate(row.texts):
                item.setText(column, text)
                item.setToolTip(column, row.toolTip)
            item.setData(NAME, qt.Qt.UserRole, row.name)
            item.setTextAlignment(CASES, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            if row.fault:
                item.setIcon(NAME, self._tree.style().standardIcon(qt.QStyle.SP_MessageBoxWarning))
            self._tree.addTopLevelItem(item)
        self._tree.blockSignals(wasBlocked)
        self.search(self._search)
        self.select(selected)


def _rowOf(name: str, info: Any) -> Row:
    score, cases, date = facts.score(info), facts.trainingCases(info), facts.date(info)
    second = ": ".join(part for part in (facts.modality(info), facts.anatomy(info)) if part)
    second = second if len(second) <= _MOST_LETTERS else second[:_MOST_LETTERS - 1] + "…"
    texts = (f"{name}\n{second}", score.short if score else "", "" if cases is None else str(cases), date)
    toolTip = asPlainHtml(f"{name}\n{facts.description(info)}")
    order = (facts.folded(name), score.value if score else None, cases, date or None)
    return Row(name, texts, toolTip, facts.searchText(name, info), order)


def _damagedRow(name: str, fault: str) -> Row:
    texts = (f"{name}\n" + _("damaged"), "", "", "")
    return Row(name, texts, asPlainHtml(f"{name}\n{fault}"), facts.folded(f"{name} {_('damaged')}"),
               (facts.folded(name), None, None, None), fault)


def _sorted(rows: list[Row], key: Callable[[Row], Any], isDescending: bool) -> list[Row]:
    """Rows by `key`, by name where it is equal; those without come last in either order."""
    known = [row for row in rows if key(row) is not None]
    known.sort(key=lambda row: row.order[NAME])
    known.sort(key=key, reverse=isDescending)
    return known + sorted((row for row in rows if key(row) is None), key=lambda row: row.order[NAME])
