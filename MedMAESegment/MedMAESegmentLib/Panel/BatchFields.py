"""Which images a batch takes, and where its results go: what is typed and chosen, kept in the scene."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Signal import Signal

FOLDER = "folder"


class BatchFields:
    """The fields above the table; ``changed()`` comes when the user has changed or confirmed one.

    Needs the widgets batchVolumesButton, batchFolderButton, batchFolderLabel, batchFolderEdit, batchChooseFolderButton,
    batchOutputEdit and batchChooseOutputButton.
    """

    def __init__(self, ui: SimpleNamespace, logic: Any) -> None:
        """`logic` gives the parameter node in which the choices are kept."""
        self.changed = Signal()
        self._ui, self._logic = ui, logic
        self._confirmed: set[str] = set()  # places on other computers that the user has named, not only the scene
        ui.batchFolderButton.toggled.connect(self._onSource)
        ui.batchFolderEdit.editingFinished.connect(self._onEdited)
        ui.batchOutputEdit.editingFinished.connect(self._onEdited)
        ui.batchChooseFolderButton.clicked.connect(self.onChooseFolder)
        ui.batchChooseOutputButton.clicked.connect(self.onChooseOutput)
        self._showSource()

    @property
    def isFolder(self) -> bool:
        """Whether the images of a folder are segmented, not those of the scene."""
        return bool(self._ui.batchFolderButton.checked)

    @property
    def folder(self) -> Path | None:
        """The folder with the images."""
        return None if self.unconfirmed else _path(self._ui.batchFolderEdit.text)

    @property
    def output(self) -> Path | None:
        """The folder for the results; None: the default."""
        return None if self.unconfirmed else _path(self._ui.batchOutputEdit.text)

    @property
    def unconfirmed(self) -> str:
        """A place on another computer that came with the scene: merely looking there tells that computer who looks."""
        texts = [edit.text.strip() for edit in (self._ui.batchFolderEdit, self._ui.batchOutputEdit)]
        return next((text for text in texts if _isElsewhere(text) and text not in self._confirmed), "")

    def read(self) -> None:
        """Show what the scene says."""
        parameters = self._logic.getParameterNode()
        button = self._ui.batchFolderButton if parameters.batchSource == FOLDER else self._ui.batchVolumesButton
        for widget in (self._ui.batchFolderButton, self._ui.batchVolumesButton):
            widget.blockSignals(True)
        button.checked = True
        for widget in (self._ui.batchFolderButton, self._ui.batchVolumesButton):
            widget.blockSignals(False)
        for edit, text in ((self._ui.batchFolderEdit, parameters.batchFolder),
                           (self._ui.batchOutputEdit, parameters.batchOutputFolder)):
            if edit.text != text and not edit.hasFocus():  # what is being typed stays
                edit.text = text
        self._showSource()

    def setEnabled(self, isEnabled: bool) -> None:
        """Whether anything can be chosen now."""
        for name in ("batchVolumesButton", "batchFolderButton", "batchFolderEdit", "batchChooseFolderButton",
                     "batchOutputEdit", "batchChooseOutputButton"):
            getattr(self._ui, name).enabled = isEnabled

    def showDefault(self, output: Path | None) -> None:
        """Say where the results of a folder go when no folder is named."""
        edit = self._ui.batchOutputEdit
        if not self.isFolder:
            edit.placeholderText, edit.toolTip = _("Only in the scene"), _(
                "Results are also saved in this folder, as .seg.nrrd files.")
        elif output is None:
            edit.placeholderText, edit.toolTip = "", _("The results are saved in this folder.")
        else:
            edit.placeholderText = _("{name} in that folder").format(name=output.name)
            edit.toolTip = _("The results are saved in {folder}.").format(folder=output)

    def onChooseFolder(self, clicked: bool = False) -> None:
        """Ask for the folder with the images."""
        self._choose(self._ui.batchFolderEdit, _("The folder with the images"))

    def onChooseOutput(self, clicked: bool = False) -> None:
        """Ask for the folder for the results."""
        self._choose(self._ui.batchOutputEdit, _("The folder for the results"))

    def _choose(self, edit: qt.QLineEdit, title: str) -> None:
        path = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title, edit.text)
        if path:
            edit.text = path
            self._confirm()
            self._write()

    def _onSource(self, checked: bool) -> None:
        self._showSource()
        self._write()

    def _confirm(self) -> None:
        self._confirmed |= {edit.text.strip() for edit in (self._ui.batchFolderEdit, self._ui.batchOutputEdit)}

    def _onEdited(self) -> None:
        self._confirm()
        parameters = self._logic.getParameterNode()
        if (parameters.batchFolder, parameters.batchOutputFolder) != (
                self._ui.batchFolderEdit.text.strip(), self._ui.batchOutputEdit.text.strip()):
            self._write()
        else:
            self.changed.emit()

    def _write(self) -> None:
        parameters = self._logic.getParameterNode()
        folder, output = self._ui.batchFolderEdit.text.strip(), self._ui.batchOutputEdit.text.strip()
        source = FOLDER if self.isFolder else ""
        with slicer.util.NodeModify(parameters.parameterNode):  # told once, so that nothing half is shown
            parameters.batchSource, parameters.batchFolder, parameters.batchOutputFolder = source, folder, output
        self.changed.emit()

    def _showSource(self) -> None:
        for widget in (self._ui.batchFolderLabel, self._ui.batchFolderEdit, self._ui.batchChooseFolderButton):
            widget.visible = self.isFolder


def _isElsewhere(text: str) -> bool:
    """Whether a path names another computer, as Windows reads it."""
    return text.replace("\\", "/").startswith("//")


def _path(text: str) -> Path | None:
    return Path(os.path.expanduser(text.strip())) if text.strip() else None  # noqa: PTH111 - takes whatever is typed
