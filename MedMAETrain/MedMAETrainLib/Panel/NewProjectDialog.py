"""The dialog in which a project gets its name and its folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

import qt
from MedMAESegmentLib.Panel import Dialogs as dialogs
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.Form import FormDialog

_NOT_IN_FOLDERS = '<>:"/\\|?*'  # Windows allows none of them


class NewProjectDialog(FormDialog):
    """Asks for a name and a place; the project's folder is made there under that name.

    >>> dialog = NewProjectDialog()
    >>> if dialog.show():
    ...     logic.createProject(dialog.folder, dialog.projectName)
    """

    def __init__(self) -> None:
        super().__init__(_("New project"), _("Create"))
        self.nameEdit, self.placeEdit = qt.QLineEdit(), qt.QLineEdit()
        self.nameEdit.placeholderText = _("For example: Liver CT")
        self.placeEdit.setText(str(Path.home() / "MedMAE projects"))
        self.placeButton = qt.QPushButton(_("Choose..."))
        place = qt.QHBoxLayout()
        place.addWidget(self.placeEdit)
        place.addWidget(self.placeButton)
        form = qt.QFormLayout()
        form.addRow(_("Name:"), self.nameEdit)
        form.addRow(_("In folder:"), place)
        self.layout.addLayout(form)
        self.hintLabel = self.addText("")
        self.layout.addStretch(1)
        self.nameEdit.textChanged.connect(self._update)
        self.placeEdit.textChanged.connect(self._update)
        self.placeButton.clicked.connect(self.onPlace)
        self._update()

    @property
    def projectName(self) -> str:
        """The name that was entered."""
        return str(self.nameEdit.text).strip()

    @property
    def folder(self) -> Path:
        """The project's own folder."""
        name = "".join("_" if letter in _NOT_IN_FOLDERS else letter for letter in self.projectName).strip(" .")
        place = Path.home() / str(self.placeEdit.text).strip()
        with contextlib.suppress(RuntimeError):  # "~somebody" who is not known here: it is a name like any other
            place = Path.home() / Path(str(self.placeEdit.text).strip()).expanduser()
        return place / (name or "project")

    def onPlace(self, clicked: bool = False) -> None:
        """Ask for the folder in which the project's folder is made."""
        folder = dialogs.folderToRead(_("Where shall the folder of the project be made?"))
        if folder:
            self.placeEdit.setText(folder)

    def _update(self, text: str = "") -> None:
        isComplete = bool(self.projectName and str(self.placeEdit.text).strip())
        self.okButton.enabled = isComplete
        self.hintLabel.text = _("The project is kept in {folder}. Choose a place with enough room: images of the scene "
                                "are copied there.").format(folder=self.folder) if isComplete else _(
            "Give the project a name.")
