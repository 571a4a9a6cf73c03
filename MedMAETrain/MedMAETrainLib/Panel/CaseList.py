"""The table of the cases of a project, sorted by a column; long ones are filled in little by little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from MedMAETrainLib.Panel import CaseTexts as texts
from MedMAETrainLib.ProjectCase import ROLES, STATES, ProjectCase

CASE, STATE, ROLE, CLASS, PATIENT = range(5)
ICON = 36  # pixels
_MARGIN = 10
ROWS_AT_ONCE = 40  # that are filled in before the application may react again


class CaseList:
    """Fills a QTreeWidget with one row a case.

    ``selected()`` comes when the user selects others, ``opened(caseId)`` on a double click, ``removed()`` on the key
    Delete. What is selected stays so when the cases change or are sorted.
    """

    def __init__(self, tree: Any, thumbnail: Callable[[ProjectCase], Path | None]) -> None:
        self.selected, self.opened, self.removed = Signal(), Signal(), Signal()
        self._tree, self._thumbnail = tree, thumbnail
        self._cases: dict[str, ProjectCase] = {}
        self._open: frozenset[str] = frozenset()
        self._order: list[str] = []
        self._items: dict[str, Any] = {}
        self._stamps: dict[str, int] = {}  # of the pictures that are shown
        self._selection: list[str] = []
        self._column, self._isDescending = CASE, False
        tree.setHeaderLabels([_("Case"), _("State"), _("Used for"), _("Class"), _("Patient")])
        tree.setIconSize(qt.QSize(ICON, ICON))
        header = tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(CASE, qt.QHeaderView.Stretch)
        for column, widest in ((STATE, texts.WIDEST_STATE), (ROLE, texts.roleText("unlabelled")),
                               (CLASS, _("a class")), (PATIENT, _("Patient"))):  # little, so that names have room
            header.resizeSection(column, tree.fontMetrics().boundingRect(widest).width() + _MARGIN)
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(CASE, qt.Qt.AscendingOrder)
        header.sectionClicked.connect(self.onSectionClicked)
        tree.itemSelectionChanged.connect(self._onSelectionChanged)
        tree.itemDoubleClicked.connect(lambda item, _column: self.opened.emit(str(item.data(CASE, qt.Qt.UserRole))))
        self._shortcut = qt.QShortcut(qt.QKeySequence(qt.Qt.Key_Delete), tree)
        self._shortcut.setContext(qt.Qt.WidgetShortcut)
        self._shortcut.activated.connect(self.removed.emit)
        self._timer = newTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._fill)

    @property
    def selection(self) -> list[str]:
        """The ids of the selected cases, from top to bottom."""
        chosen = set(self._selection)
        return [identity for identity in self._order if identity in chosen]

    def show(self, cases: Sequence[ProjectCase], isOpen: frozenset[str] = frozenset()) -> None:
        """Show cases; those with these ids are open in the scene."""
        before, wasOpen = self._cases, self._open
        self._cases, self._open = {case.id: case for case in cases}, isOpen
        self._tree.setColumnHidden(CLASS, all(case.className is None for case in cases))
        order = self._sorted()
        if order != self._order:
            self._order = order
            self._rebuild()
            return
        for identity, item in self._items.items():
            case = self._cases[identity]
            if (before[identity] != case or (identity in wasOpen) != (identity in isOpen)
                    or self._stamps[identity] != _stampOf(self._thumbnail(case))):
                self._fillRow(item, case)

    def select(self, identities: Sequence[str]) -> None:
        """Select cases and bring the first into view; emits nothing."""
        self._selection = [identity for identity in identities if identity in self._cases]
        wasBlocked = self._tree.blockSignals(True)
        self._tree.clearSelection()
        while self._selection and self._selection[0] not in self._items:
            self._fill()
        for identity in self._selection:
            if identity in self._items:
                self._items[identity].setSelected(True)
        if self._selection:
            self._tree.scrollToItem(self._items[self._selection[0]])
        self._tree.blockSignals(wasBlocked)

    def updateThumbnail(self, identity: str) -> None:
        """Show a picture that was made just now."""
        if identity in self._items:
            self._fillRow(self._items[identity], self._cases[identity])

    def withoutThumbnail(self) -> list[ProjectCase]:
        """The cases that have no picture yet, from top to bottom."""
        return [self._cases[identity] for identity in self._order if self._thumbnail(self._cases[identity]) is None]

    def stop(self) -> None:
        """Fill in nothing more: the table is about to go."""
        self._timer.stop()

    def onSectionClicked(self, column: int) -> None:
        """Sort by a column; a second click turns the order round."""
        self._isDescending = not self._isDescending if column == self._column else False
        self._column = column
        self._tree.header().setSortIndicator(
            column, qt.Qt.DescendingOrder if self._isDescending else qt.Qt.AscendingOrder)
        self._order = self._sorted()
        self._rebuild()

    def _sorted(self) -> list[str]:
        keys: dict[int, Callable[[ProjectCase], Any]] = {
            CASE: lambda case: texts.nameText(case).casefold(), STATE: lambda case: STATES.index(case.state),
            ROLE: lambda case: ROLES.index(case.role), CLASS: lambda case: (case.className or "").casefold(),
            PATIENT: lambda case: case.subject}
        ordered = sorted(self._cases.values(), key=lambda case: case.id)
        return [case.id for case in sorted(ordered, key=keys[self._column], reverse=self._isDescending)]

    def _rebuild(self) -> None:
        self._selection = [identity for identity in self._selection if identity in self._cases]
        wasBlocked = self._tree.blockSignals(True)
        self._tree.clear()
        self._tree.blockSignals(wasBlocked)
        self._items = {}
        self._fill()

    def _fill(self) -> None:
        wasBlocked = self._tree.blockSignals(True)
        first, chosen = len(self._items), set(self._selection)
        for identity in self._order[first:first + ROWS_AT_ONCE]:
            item = self._items[identity] = qt.QTreeWidgetItem()
            item.setData(CASE, qt.Qt.UserRole, identity)
            self._fillRow(item, self._cases[identity])
            self._tree.addTopLevelItem(item)
            item.setSelected(identity in chosen)
        self._tree.blockSignals(wasBlocked)
        if len(self._items) < len(self._order):
            self._timer.start()
        else:
            self._timer.stop()

    def _fillRow(self, item: Any, case: ProjectCase) -> None:
        toolTip, title = texts.toolTip(case), [texts.nameText(case), texts.segmentsText(case)]
        for column, text in enumerate((
                "\n".join(line for line in title if line), texts.stateText(case), texts.roleText(case.role),
                case.className or "", texts.patientText(case.subject))):
            item.setText(column, text)
            item.setToolTip(column, toolTip)
        font = item.font(CASE)
        font.setBold(case.id in self._open)
        item.setFont(CASE, font)
        path = self._thumbnail(case)
        self._stamps[case.id] = _stampOf(path)
        item.setIcon(CASE, qt.QIcon(qt.QPixmap(str(path))) if path is not None else self._noThumbnail())

    @staticmethod
    def _noThumbnail() -> qt.QIcon:
        empty = qt.QPixmap(ICON, ICON)
        empty.fill(qt.QColor(128, 128, 128, 50))
        return qt.QIcon(empty)

    def _onSelectionChanged(self) -> None:
        filled = {str(item.data(CASE, qt.Qt.UserRole)) for item in self._tree.selectedItems()}
        self._selection = [identity for identity in self._order if identity in filled]
        self.selected.emit()


def _stampOf(path: Path | None) -> int:
    """What changes whenever a picture is drawn again; 0: there is none."""
    return path.stat().st_mtime_ns if path is not None else 0
