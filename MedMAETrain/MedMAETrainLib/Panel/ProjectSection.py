"""The part of the panel that says which project is open, and opens and creates projects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.Panel.NewProjectDialog import NewProjectDialog
from MedMAETrainLib.Panel.RecentProjects import forgetProject, recentProjects, rememberProject
from MedMAETrainLib.Panel.Texts import breakable, shortPath
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectFile import DamagedProject

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "ProjectSection.ui"


class ProjectSection:
    """Opens projects, one at a time; ``changed()`` comes when another one is open, none is, or its content changes.

    >>> section = ProjectSection(ui.projectCollapsibleButton, logic)
    >>> section.folder = "/data/livers"  # as the scene says; why it cannot be opened is shown, and in `problem`
    >>> section.project
    """

    def __init__(self, parentWidget: qt.QWidget, logic: Any) -> None:
        """`parentWidget` has a layout, at whose end this goes; `logic` is a `MedMAETrainLogic`."""
        self.changed = Signal()
        self.problem = ""  # why the last one could not be opened
        self._logic = logic
        self._project: Project | None = None
        self._wanted, self._canRestore, self._isForeign = "", False, False
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        icon = self.ui.projectProblemFrame.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        self.ui.projectProblemIcon.setPixmap(icon.pixmap(16, 16))
        self._makeMenus()
        self.ui.projectNewButton.clicked.connect(self.onNew)
        self.ui.projectRestoreButton.clicked.connect(self.onRestore)
        self.ui.projectAgainButton.clicked.connect(self.onAgain)
        self._show()

    @property
    def project(self) -> Project | None:
        """The project that is open."""
        return self._project

    @property
    def folder(self) -> str:
        """The folder of the project that is open, "" for none. Setting it opens the one there, without a dialog."""
        return str(self._project.path) if self._project is not None else ""

    @folder.setter
    def folder(self, folder: str) -> None:
        if folder and folder == self._wanted:  # what has failed is not tried at every turn
            return
        if folder == self.folder:
            if self.problem:  # of another scene
                self._take(self._project)
            return
        if _isElsewhere(folder) and all(each.folder != folder for each in recentProjects()):
            # Merely looking there would tell another computer who looks.
            self._isForeign = True
            self._fail(folder, _("The scene names a project on another computer: {folder}.").format(folder=folder))
        elif folder:
            self.open(folder)
        else:
            self._take(None)

    def open(self, folder: str, restoreBackup: bool = False) -> None:
        """Open the project in a folder in place of the one that is open; why that cannot be done is shown."""
        try:
            project = self._logic.openProject(folder, restoreBackup=restoreBackup)
        except DamagedProject as error:
            self._fail(folder, str(error), error.hasBackup)
        except (BadInput, OSError) as error:
            self._fail(folder, str(error))
        else:
            self._take(project)

    def cleanup(self) -> None:
        """The module is closed."""
        self._disconnect()
        self._project = None

    def onNew(self, clicked: bool = False) -> None:
        """Ask for a folder and a name, and make a project there."""
        dialog = NewProjectDialog()
        if not dialog.show():
            return
        try:
            self._take(self._logic.createProject(dialog.folder, dialog.projectName))
        except BadInput as error:
            self._fail("", str(error))

    def onOpen(self, clicked: bool = False) -> None:
        """Ask for the folder of a project and open it."""
        folder = dialogs.folderToRead(_("The folder of the project"))
        if folder:
            self.open(folder)

    def onRestore(self, clicked: bool = False) -> None:
        """Go on from the state before the last change."""
        self.open(self._wanted, restoreBackup=True)

    def onAgain(self, clicked: bool = False) -> None:
        """Try to open what could not be opened."""
        self.open(self._wanted)

    def onRename(self, checked: bool = False) -> None:
        """Ask for another name."""
        assert self._project is not None
        name = dialogs.enteredText(_("Rename project"), _("Name of the project:"), self._project.name)
        if name:
            try:
                self._project.rename(name)
            except (BadInput, ValueError) as error:
                dialogs.tellError(_("The project was not renamed.") + f"\n\n{error}")
            rememberProject(self.folder, self._project.name)

    def onShowFolder(self, checked: bool = False) -> None:
        """Open the project's folder in the file manager."""
        if not Path(self.folder).is_dir() or not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self.folder)):
            dialogs.tellError(_("The folder cannot be shown: {folder}").format(folder=self.folder))

    def onClose(self, checked: bool = False) -> None:
        """Close the project, so that another Slicer can open it."""
        self._take(None)

    def _take(self, project: Project | None) -> None:
        """Show another project; the one before is closed, so that another Slicer can open it."""
        self.problem, self._wanted, self._canRestore, self._isForeign = "", "", False, False
        if project is not self._project:
            self._disconnect()
            if self._project is not None:
                self._project.cancel()
                self._project.close()
            self._project = project
            if project is not None:
                project.changed.connect(self._onChanged)
        if project is not None:
            rememberProject(self.folder, project.name)
        self._onChanged()

    def _disconnect(self) -> None:
        if self._project is not None:
            self._project.changed.disconnect(self._onChanged)

    def _fail(self, folder: str, problem: str, canRestore: bool = False) -> None:
        """Show why a project cannot be opened; the one that is open stays open."""
        self.problem, self._wanted, self._canRestore = problem, folder, canRestore
        self._show()

    def _onChanged(self) -> None:
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        ui, project = self.ui, self._project
        ui.projectEmptyLabel.visible = project is None and not self.problem
        ui.projectNameLabel.visible = ui.projectFolderLabel.visible = ui.projectMenuButton.visible = project is not None
        if project is not None:
            ui.projectNameLabel.text = project.name
            ui.projectFolderLabel.text = breakable(shortPath(self.folder))
            ui.projectFolderLabel.toolTip = dialogs.asPlainHtml(self.folder)
        ui.projectProblemFrame.visible = bool(self.problem)
        ui.projectProblemLabel.text = breakable(self.problem)
        ui.projectRestoreButton.visible = self._canRestore
        ui.projectAgainButton.visible = bool(self._wanted)
        ui.projectAgainButton.text = _("Open it") if self._isForeign else _("Try again")

    def _makeMenus(self) -> None:
        self.recentMenu, self.menu = qt.QMenu(), qt.QMenu()
        self.recentMenu.aboutToShow.connect(self._fillRecent)
        self.ui.projectOpenButton.setMenu(self.recentMenu)
        for text, do in ((_("Rename..."), self.onRename), (_("Show folder"), self.onShowFolder),
                         (_("Close project"), self.onClose)):
            self.menu.addAction(text).triggered.connect(do)
        self.ui.projectMenuButton.setMenu(self.menu)

    def _fillRecent(self) -> None:
        self.recentMenu.clear()
        self.recentMenu.addAction(_("Choose a folder...")).triggered.connect(self.onOpen)
        projects = [each for each in recentProjects() if each.folder != self.folder]
        if projects:
            self.recentMenu.addSeparator()
        for each in projects:
            # Where nothing can be asked without telling another computer, it is not asked.
            isGone = not _isElsewhere(each.folder) and not each.isThere
            text = _("{name} (not there any more)") if isGone else "{name}"
            action = self.recentMenu.addAction(text.format(name=each.name.replace("&", "&&")))
            action.toolTip = dialogs.asPlainHtml(each.folder)
            action.triggered.connect(lambda _checked=False, folder=each.folder, gone=isGone: self._onRecent(
                folder, gone))
        self.recentMenu.toolTipsVisible = True

    def _onRecent(self, folder: str, isGone: bool) -> None:
        text = _("There is no project in {folder} any more. Take it out of this list?").format(folder=folder)
        if not isGone:
            self.open(folder)
        elif dialogs.isConfirmed(text):
            forgetProject(folder)


def _isElsewhere(folder: str) -> bool:
    """Whether a path names another computer, as Windows reads it."""
    return folder.replace("\\", "/").startswith("//")
