"""The box in the panel that tells what came of something, until the user closes it."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.Texts import breakable

_MOST_LINES = 6  # in the panel; the others are in a window


class MessageBox:
    """Shows a text as it is; a long one is shown whole in a window, where it can be selected."""

    def __init__(self, parentLayout: qt.QVBoxLayout) -> None:
        """`parentLayout` gets the box at its end."""
        self.text = ""
        self.frame = qt.QFrame()
        self.frame.setFrameShape(qt.QFrame.StyledPanel)
        self._icon, self.label = qt.QLabel(), qt.QLabel()
        self.label.textFormat = qt.Qt.PlainText
        self.label.wordWrap = True
        self.label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        self.allButton, self.closeButton = qt.QToolButton(), qt.QToolButton()
        self.allButton.text = _("All...")
        self.allButton.toolTip = _("Show the whole message.")
        self.allButton.clicked.connect(self.onAll)
        self.closeButton.setIcon(self.frame.style().standardIcon(qt.QStyle.SP_TitleBarCloseButton))
        self.closeButton.autoRaise = True
        self.closeButton.toolTip = _("Close this message.")
        self.closeButton.clicked.connect(self.onClose)
        buttons = qt.QVBoxLayout()
        buttons.addWidget(self.closeButton, 0, qt.Qt.AlignRight)
        buttons.addStretch(1)
        buttons.addWidget(self.allButton)
        layout = qt.QHBoxLayout()
        layout.setContentsMargins(6, 4, 4, 4)
        layout.addWidget(self._icon, 0, qt.Qt.AlignTop)
        layout.addWidget(self.label, 1)
        layout.addLayout(buttons)
        self.frame.setLayout(layout)
        parentLayout.addWidget(self.frame)
        self.tell("")

    def tell(self, text: str, isProblem: bool = False) -> None:
        """Tell something, in place of what was told before; "" for nothing."""
        self.text = text
        lines = text.split("\n")
        isLong = len(lines) > _MOST_LINES
        self.label.text = breakable("\n".join(lines[:_MOST_LINES - 1] + ["..."] if isLong else lines))
        kind = qt.QStyle.SP_MessageBoxWarning if isProblem else qt.QStyle.SP_MessageBoxInformation
        self._icon.setPixmap(self.frame.style().standardIcon(kind).pixmap(16, 16))
        self.allButton.visible = isLong
        self.frame.visible = bool(text)

    def onAll(self, clicked: bool = False) -> None:
        """Show the whole text in a window."""
        dialog = qt.QDialog(slicer.util.mainWindow())
        dialog.windowTitle = _("MedMAE Train")
        dialog.resize(600, 400)
        edit = qt.QPlainTextEdit()
        edit.readOnly = True
        edit.setPlainText(self.text)
        buttons = qt.QDialogButtonBox()
        buttons.setStandardButtons(qt.QDialogButtonBox.Close)
        buttons.rejected.connect(dialog.reject)
        layout = qt.QVBoxLayout()
        layout.addWidget(edit)
        layout.addWidget(buttons)
        dialog.setLayout(layout)
        dialog.exec()
        dialog.deleteLater()

    def onClose(self, clicked: bool = False) -> None:
        """Hide the message."""
        self.tell("")
