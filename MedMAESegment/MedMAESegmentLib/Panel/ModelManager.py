"""The menu that brings models in and out. All of it works without internet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAESegmentLib.CheckpointImport import ENDINGS
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Panel.ModelComparison import comparison
from MedMAESegmentLib.Panel.WeightsImport import askHowToImport, fileFilter, isCheckpoint, loadReport, modelIn

_log = logging.getLogger(__name__)


class ModelManager:
    """Actions of the menu of a button; `section` is the `ModelSection` whose list they change.

    While one works, the button is off and the section says what is done; the application stays alive.
    """

    def __init__(self, button: Any, logic: Any, section: Any) -> None:
        self._button, self._logic, self._section = button, logic, section
        self._isWorking = False
        self.menu = qt.QMenu(button)
        self.importFileAction = self._add(_("Import from file…"), self.onImportFile)
        self.importFolderAction = self._add(_("Import from folder…"), self.onImportFolder)
        self.updateAction = self._add(_("Update from file…"), self.onUpdate)
        self.menu.addSeparator()
        self.exportAction = self._add(_("Export…"), self.onExport)
        self.removeAction = self._add(_("Remove…"), self.onRemove)
        self.menu.addSeparator()
        self.folderAction = self._add(_("Show folder"), self.onShowFolder)
        self.refreshAction = self._add(_("Refresh list"), self.onRefresh)
        button.setMenu(self.menu)

    def show(self) -> None:
        """Offer what can be done with what is chosen."""
        isThere = self._section.folder is not None
        self.exportAction.enabled = self._section.info is not None
        self.updateAction.enabled = self._section.info is not None
        self.removeAction.enabled = isThere
        self._button.enabled = not self._isWorking

    def onImportFile(self, checked: bool = False) -> None:
        """Install a model from a file."""
        path = dialogs.fileToRead(_("A model that someone exported, or weights of VIS-MAE, GL-MAE or MONAI"),
                                  fileFilter(*ENDINGS))
        if isCheckpoint(path):
            self._importCheckpoint(Path(path))
        elif path:
            self._import(Path(path))

    def onImportFolder(self, checked: bool = False) -> None:
        """Install a model from its folder or from a finished training."""
        path = dialogs.folderToRead(_("The folder of a model or of a finished training"))
        if path:
            self._import(Path(path))

    def onUpdate(self, checked: bool = False) -> None:
        """Replace the chosen model by a newer version of it."""
        name, installed = self._section.name, self._section.info
        path = dialogs.fileToRead(_("A newer version of {name}").format(name=name), fileFilter())
        if not path or not self._mayChangeModels():
            return
        with self._work(_("The model was not updated."), _("Updating {name}…").format(name=name)):
            found = modelIn(path)
            new = self._logic.inspectModel(found)
            if new.task != installed.task:
                raise ValueError(_("The file holds a model for {new}, but {name} is one for {installed}. Import it as "
                                   "a model of its own.").format(new=new.task, name=name, installed=installed.task))
            question = _("Replace the model {name} by the one in the file?").format(name=name)
            if dialogs.isConfirmed(f"{question}\n\n{comparison(installed, new)}"):
                self._logic.importModel(found, name, replace=True)

    def onExport(self, checked: bool = False) -> None:
        """Write the chosen model into one file for others."""
        name = self._section.name
        path = dialogs.fileToWrite(_("Export the model {name}").format(name=name), f"{name}.zip",
                                   _("Model") + " (*.zip)")
        if not path:
            return
        target = Path(path)
        if target.suffix.lower() != ".zip":
            target = target.with_name(target.name + ".zip")
            if target.exists() and not dialogs.isConfirmed(_("Replace the file {file}?").format(file=target)):
                return
        with self._work(_("The model was not exported."), _("Exporting {name}…").format(name=name)):
            self._logic.exportModel(name, target, replace=True)  # the dialog has asked

    def onRemove(self, checked: bool = False) -> None:
        """Delete the chosen model."""
        name = self._section.name
        question = _("Remove the model {name} from this computer? Its folder is deleted; segmentations made with it "
                     "stay.").format(name=name)
        if not self._mayChangeModels() or not dialogs.isConfirmed(question):
            return
        with self._work(_("The model was not removed."), _("Removing {name}…").format(name=name)):
            self._logic.removeModel(name)
            self._section.name = ""

    def onShowFolder(self, checked: bool = False) -> None:
        """Open the folder of the chosen model, or that of all models, in the file manager."""
        folder = self._section.folder or self._logic.modelsFolder()
        if not folder.is_dir() or not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            dialogs.tellError(_("The folder cannot be shown: {folder}").format(folder=folder))

    def onRefresh(self, checked: bool = False) -> None:
        """Look which models there are now."""
        self._section.update()

    def _import(self, path: Path) -> None:
        imported, task = "", ""
        with self._work(_("The model was not imported."), _("Importing {name}…").format(name=path.name)):
            found = modelIn(path)
            new = self._logic.inspectModel(found)
            name, replace = self._freeName(self._logic.usableName(new.name), new)
            if name and (not replace or self._mayChangeModels()):
                imported, task = self._logic.importModel(found, name, replace), new.task
        if task == "encoder":
            dialogs.tell(_isEncoder(imported))
        elif imported:
            self._section.name = imported

    def _importCheckpoint(self, path: Path) -> None:
        answers = askHowToImport(path, self._logic)
        if answers is None:
            return
        report: dict[str, Any] = {}
        with self._work(_("The weights were not imported."), _("Importing {name}…").format(name=path.name)):
            report = self._logic.importCheckpoint(path, *answers)
        if not report:
            return
        isEncoder = report["task"] == "encoder"
        dialogs.tell(loadReport(report) + ("\n" + _isEncoder(report["name"]) if isEncoder else ""))
        if not isEncoder:
            self._section.name = answers[1]

    def _freeName(self, name: str, new: Any) -> tuple[str, bool]:
        """A name for a new model, and whether an installed one is replaced; "" for cancelled."""
        while self._logic.isInstalled(name):
            entered = dialogs.enteredText(
                _("Import model"), _("A model named {name} is installed already. Give the new one another name, or "
                                     "enter {name} to replace the installed one.").format(name=name),
                self._logic.freeName(name))
            if not entered:
                return "", False
            entered = self._logic.usableName(entered)
            if entered == name:
                installed = self._section.models.get(name)
                changes = f"\n\n{comparison(installed, new)}" if installed is not None else ""
                isConfirmed = dialogs.isConfirmed(
                    _("Replace the installed model {name}?").format(name=name) + changes)
                return (name, True) if isConfirmed else ("", False)
            name = entered
        return name, False

    def _mayChangeModels(self) -> bool:
        if self._section.isIdle():
            return True
        dialogs.tellError(_("A computation is under way, which may need the model. Wait until it is done, or cancel "
                            "it, and try again."))
        return False

    @contextmanager
    def _work(self, failure: str, message: str) -> Iterator[None]:
        """Say what is done; what goes wrong is explained, and the list shows what there is then."""
        self._isWorking = True
        self._section.showWork(message)
        self.show()
        try:
            yield
        except (OSError, ValueError, RuntimeError, BadInput) as error:
            if not isinstance(error, BadInput):  # which says all that there is to know
                _log.warning("%s", failure, exc_info=True)
            dialogs.tellError(f"{failure}\n\n{explained(error)}")
        finally:
            self._isWorking = False
            self._section.showWork("")
            self._section.update()

    def _add(self, text: str, do: Callable[..., None]) -> Any:
        action = self.menu.addAction(text)
        action.triggered.connect(do)
        return action


def _isEncoder(name: str) -> str:
    return _("{name} is a pretrained encoder. It segments nothing by itself: MedMAE Train makes a model from it and "
             "your cases.").format(name=name)
