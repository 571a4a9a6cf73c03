"""The table of the settings that are recommended for a run, in which they can be changed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import qt
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.Recommendation import Purpose, Setting
from MedMAETrainLib.SettingValues import readValue, refuseSettings, showValue

NAME, VALUE, REASON = range(3)
_NAME_WIDTH, _VALUE_WIDTH = 72, 104


class TrainSettings:
    """Shows the settings, each with its reason; ``changed()`` comes when one was changed or taken back.

    Needs the widgets trainSettingsTable and trainResetButton.
    """

    def __init__(self, ui: SimpleNamespace) -> None:
        self.changed = Signal()
        self._ui = ui
        self._purpose: Purpose | None = None
        self._settings: list[Setting] = []
        self._changes: dict[str, Any] = {}
        self._wrong: dict[str, str] = {}  # what was written and cannot be a value
        self._problem = ""
        self._shown: tuple = ()
        table = ui.trainSettingsTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Setting"), _("Value"), _("Why")])
        header = table.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Fixed)
        header.setSectionResizeMode(REASON, qt.QHeaderView.Stretch)
        header.resizeSection(NAME, _NAME_WIDTH)
        header.resizeSection(VALUE, _VALUE_WIDTH)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.setWordWrap(True)
        table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setSelectionMode(qt.QAbstractItemView.NoSelection)
        table.itemChanged.connect(self._onItemChanged)
        self._fitTimer = qt.QTimer(table)  # rows have their new heights a turn after the columns have their widths
        self._fitTimer.setSingleShot(True)
        self._fitTimer.setInterval(0)
        self._fitTimer.timeout.connect(self._fitHeight)
        header.sectionResized.connect(lambda *_sizes: self._fitTimer.start())
        ui.trainResetButton.clicked.connect(self.onReset)

    @property
    def values(self) -> dict[str, Any]:
        """What a run is told, without what the engine does by itself."""
        recommended = {setting.key: setting.value for setting in self._settings if setting.value is not None}
        return {**recommended, **self._changes}

    @property
    def problem(self) -> str:
        """Why no run can be started with what was written; "" where one can."""
        return self._problem

    @property
    def json(self) -> str:
        """The changes, as the scene keeps them; "" for none."""
        return json.dumps(self._changes) if self._changes else ""

    @json.setter
    def json(self, text: str) -> None:
        try:
            changes = json.loads(text) if text else {}
        except ValueError:  # from a scene that somebody has edited
            changes = {}
        self._changes = _usable(changes) if isinstance(changes, dict) else {}
        self._wrong = {}

    def show(self, purpose: Purpose, settings: Sequence[Setting]) -> None:
        """Show the settings for a purpose; changes of those that it has too are kept."""
        shown = (purpose, list(settings), dict(self._changes), dict(self._wrong))
        if shown == self._shown:  # somebody may be writing at this moment
            return
        self._purpose, self._settings = purpose, list(settings)
        keys = {setting.key for setting in settings}
        self._changes = {key: value for key, value in self._changes.items() if key in keys}
        self._wrong = {key: text for key, text in self._wrong.items() if key in keys}
        self._fill()

    def forget(self) -> None:
        """Take back all changes."""
        self._changes, self._wrong = {}, {}

    def onReset(self, clicked: bool = False) -> None:
        """Show what is recommended again."""
        self.forget()
        self._fill()
        self.changed.emit()

    def _onItemChanged(self, item: qt.QTableWidgetItem) -> None:
        setting, text = self._settings[item.row()], item.text().strip()
        self._changes.pop(setting.key, None)
        self._wrong.pop(setting.key, None)
        if text and text != setting.shown:
            try:
                self._changes[setting.key] = readValue(setting.key, text)
            except ValueError:
                self._wrong[setting.key] = text
        self._fill()
        self.changed.emit()

    def _fill(self) -> None:
        self._problem = self._findProblem()
        self._shown = (self._purpose, self._settings, dict(self._changes), dict(self._wrong))
        table = self._ui.trainSettingsTable
        wasBlocked = table.blockSignals(True)
        table.setRowCount(len(self._settings))
        for row, setting in enumerate(self._settings):
            isChanged = setting.key in self._changes or setting.key in self._wrong
            value = self._wrong.get(setting.key) or (
                showValue(self._changes[setting.key]) if setting.key in self._changes else setting.shown)
            reason = _("Changed by you; recommended: {value}.").format(value=setting.shown) if isChanged else (
                setting.reason)
            for column, text in ((NAME, setting.name), (VALUE, value), (REASON, reason)):
                item = qt.QTableWidgetItem(text)
                isEditable = qt.Qt.ItemIsEditable if column == VALUE else qt.Qt.NoItemFlags
                item.setFlags(qt.Qt.ItemIsEnabled | isEditable)
                item.setToolTip(_("Double-click to change it; empty for what is recommended.")
                                if column == VALUE else setting.reason)
                font = item.font()
                font.setBold(isChanged and column == VALUE)
                item.setFont(font)
                table.setItem(row, column, item)
        table.blockSignals(wasBlocked)
        self._ui.trainResetButton.enabled = bool(self._changes or self._wrong)
        self._fitHeight()

    def _findProblem(self) -> str:
        """What the engine, or whoever reads the values, would object to."""
        names = {setting.key: setting.name for setting in self._settings}
        try:
            for key, text in self._wrong.items():
                readValue(key, text)
            if self._purpose is not None:
                refuseSettings(self._purpose, self.values)
        except (ValueError, BadInput) as error:
            if self._wrong:
                return f"{names[next(iter(self._wrong))]}: {error}"
            return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error))  # the engine has other names
        return ""

    def _fitHeight(self) -> None:
        """As high as its rows: the page scrolls, not the table."""
        table = self._ui.trainSettingsTable
        table.resizeRowsToContents()
        height = table.horizontalHeader().height + sum(table.rowHeight(row) for row in range(table.rowCount))
        table.setFixedHeight(height + 2 * table.frameWidth)


def _usable(changes: dict[str, Any]) -> dict[str, Any]:
    """What can be values, of changes from a scene that somebody may have edited."""
    found = {}
    for key, value in changes.items():
        with contextlib.suppress(ValueError):
            found[key] = readValue(key, showValue(value))
    return found
