"""The dialog that compares runs; their curves are in the plot view meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qt
import slicer
from MedMAESegmentLib.FollowedJob import duration
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.RunCases import summaryText
from MedMAETrainLib.Panel.RunTexts import lossText, placeText, scoreText, startedText, stateText
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunHistory import RunHistory
from MedMAETrainLib.RunScores import RunScores
from MedMAETrainLib.RunSettings import differences


class RunComparison:
    """One column a run: how it went, and the settings in which they differ; other windows can be used meanwhile."""

    def __init__(self, rows: Sequence[tuple[str, Sequence[str]]], names: Sequence[str]) -> None:
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Comparison of {count} runs").format(count=len(names))
        self.dialog.resize(min(220 + 190 * len(names), 1100), 440)
        self.table = qt.QTableWidget()
        self.table.setColumnCount(len(names))
        self.table.setHorizontalHeaderLabels(list(names))
        self.table.setRowCount(len(rows))
        self.table.setVerticalHeaderLabels([title for title, _values in rows])
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        header = self.table.horizontalHeader()
        header.setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        header.setTextElideMode(qt.Qt.ElideRight)
        header.setHighlightSections(False)
        header.setSectionResizeMode(qt.QHeaderView.Stretch)
        for column, name in enumerate(names):
            self.table.horizontalHeaderItem(column).setToolTip(asPlainHtml(name))
        for row, (_title, values) in enumerate(rows):
            for column, value in enumerate(values):
                item = qt.QTableWidgetItem(value)
                item.setToolTip(asPlainHtml(value))
                self.table.setItem(row, column, item)
        self.closeButton = qt.QPushButton(_("Close"))
        self.closeButton.clicked.connect(self.onClose)
        buttons = qt.QHBoxLayout()
        buttons.addStretch(1)
        buttons.addWidget(self.closeButton)
        layout = qt.QVBoxLayout()
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        self.dialog.setLayout(layout)
        self.closeButton.setDefault(True)
        self.closeButton.setFocus()

    def show(self) -> None:
        """Open the dialog."""
        self.dialog.show()
        self.table.resizeRowsToContents()  # whose widths are known now

    def onClose(self, clicked: bool = False) -> None:
        """Close the dialog."""
        self.dialog.accept()


def comparedRows(entries: Sequence[RunEntry], histories: Sequence[RunHistory], scores: Sequence[RunScores | None],
                 settings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Title and one text a run: state, place, time, scores, and every setting in which they differ."""
    rows = [
        (_("State"), [stateText(entry.status) for entry in entries]),
        (_("Started"), [startedText(entry).replace("\n", " ") for entry in entries]),
        (_("Computed on"), [placeText(entry) for entry in entries]),
        (_("Time"), ["" if one.seconds is None else duration(one.seconds) for one in histories]),
        (_("While training"), ["\n".join(filter(None, (scoreText(one), lossText(one)))) for one in histories]),
        (_("Result"), [summaryText(one) if one is not None else "" for one in scores]),
    ]
    rows = [(title, values) for title, values in rows if any(values)]
    rows += [(name.replace("_", " "), [_valueText(value) for value in values])
             for name, values in differences(settings).items()]
    return rows


def uniqueNames(entries: Sequence[RunEntry]) -> list[str]:
    """The names of runs, with the time where several are called the same."""
    names = [entry.name for entry in entries]
    told = [name if names.count(name) == 1 else f"{name} ({startedText(entry)})".replace("\n", " ")
            for name, entry in zip(names, entries, strict=True)]
    return [name if told.count(name) == 1 else f"{name} [{number}]" for number, name in enumerate(told, 1)]


def _valueText(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: _("yes"), False: _("no"), None: _("default")}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)
