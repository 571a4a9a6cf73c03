"""What the dialogs of the panel have in common."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


class FormDialog:
    """A modal dialog with a layout, and OK and Cancel below it; `show()` says whether the user wants it."""

    def __init__(self, title: str, accept: str = "", width: int = 460, height: int = 200) -> None:
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = title
        self.layout = qt.QVBoxLayout()
        self.buttons = qt.QDialogButtonBox()
        self.buttons.setStandardButtons(qt.QDialogButtonBox.Ok | qt.QDialogButtonBox.Cancel)
        self.okButton = self.buttons.button(qt.QDialogButtonBox.Ok)
        self.okButton.text = accept or _("OK")
        self.okButton.setDefault(True)
        self.buttons.accepted.connect(self.dialog.accept)
        self.buttons.rejected.connect(self.dialog.reject)
        outer = qt.QVBoxLayout()
        outer.addLayout(self.layout)
        outer.addWidget(self.buttons)
        self.dialog.setLayout(outer)
        self.dialog.resize(width, height)

    def show(self) -> bool:
        """Ask; whether the user wants it."""
        isWanted = bool(self.dialog.exec())
        self.dialog.deleteLater()
        return isWanted

    def addText(self, text: str) -> Any:
        """A label that shows a text as it is."""
        label = qt.QLabel()
        label.textFormat = qt.Qt.PlainText
        label.wordWrap = True
        label.text = text
        self.layout.addWidget(label)
        return label


def swatch(color: tuple[float, float, float]) -> qt.QIcon:
    """A small square of a label's colour, from 0 to 1."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor.fromRgbF(*color))
    return qt.QIcon(pixmap)
