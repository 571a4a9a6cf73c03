"""The dialog with the log of a run."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from MedMAESegmentLib.Application import newTimer
from slicer.i18n import tr as _

LOOK_EVERY_MS = 1000


class RunLog:
    """Shows the end of a log and what comes to it, until it is closed; other windows can be used meanwhile.

    >>> RunLog("my liver", lambda: logic.logText(runId)).show()
    """

    def __init__(self, name: str, read: Callable[[], str]) -> None:
        """`read` gives the log as it is now, quickly."""
        self._read = read
        self._log = ""
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Log of {name}").format(name=name)
        self.dialog.resize(760, 480)
        self.text = qt.QPlainTextEdit()
        self.text.readOnly = True
        self.text.setLineWrapMode(qt.QPlainTextEdit.NoWrap)
        font = qt.QFont("Monospace")
        font.setStyleHint(qt.QFont.Monospace)
        self.text.setFont(font)
        self.text.placeholderText = _("The run has not written anything yet.")
        self.copyButton = qt.QPushButton(_("Copy"))
        self.copyButton.toolTip = _("Copy the whole text, for example for a question to somebody.")
        self.copyButton.clicked.connect(self.onCopy)
        self.closeButton = qt.QPushButton(_("Close"))
        self.closeButton.clicked.connect(self.onClose)
        buttons = qt.QHBoxLayout()
        buttons.addWidget(self.copyButton)
        buttons.addStretch(1)
        buttons.addWidget(self.closeButton)
        layout = qt.QVBoxLayout()
        layout.addWidget(self.text)
        layout.addLayout(buttons)
        self.dialog.setLayout(layout)
        self.closeButton.setDefault(True)
        self._timer = newTimer()
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self.update)
        self.dialog.finished.connect(lambda _result: self._timer.stop())

    def show(self) -> None:
        """Open the dialog at the end of the log."""
        self.update()
        self._timer.start()
        self.dialog.show()

    def update(self) -> None:
        """Show what is new; a reader who has scrolled up stays there."""
        log = self._read()
        log = log[:log.rfind("\n") + 1] or log  # a last line that is half written comes when it is whole
        if log == self._log:
            return
        bar = self.text.verticalScrollBar()
        isAtEnd, place = bar.value >= bar.maximum, bar.value
        if self._log.endswith("\n") and log.startswith(self._log):
            self.text.appendPlainText(log[len(self._log):].rstrip("\n"))
        else:
            self.text.setPlainText(log.rstrip("\n"))
        self._log = log
        bar.setValue(bar.maximum if isAtEnd else place)

    def onCopy(self, clicked: bool = False) -> None:
        """Put the text on the clipboard."""
        slicer.app.clipboard().setText(self._log)

    def onClose(self, clicked: bool = False) -> None:
        """Close the dialog."""
        self._timer.stop()
        self.dialog.accept()
