"""The tab "Cases": the images of the project and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.EditorSetup import EditorSetup
from MedMAESegmentLib.Panel.BatchResults import showSegmentation
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from slicer.i18n import tr as _

from MedMAETrainLib.LabelExport import segmentNames
from MedMAETrainLib.Panel.CaseAdding import CaseAdding, askMapping
from MedMAETrainLib.Panel.CaseList import CaseList
from MedMAETrainLib.Panel.CaseMenu import CaseMenu
from MedMAETrainLib.Panel.CaseTexts import countsText, missingText, nameText
from MedMAETrainLib.Panel.CaseThumbnails import CaseThumbnails
from MedMAETrainLib.Panel.CaseWork import CaseWork
from MedMAETrainLib.Panel.LabelsDialog import LabelsDialog
from MedMAETrainLib.Panel.MessageBox import MessageBox
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectImport import caseOfNode
from MedMAETrainLib.ProjectLabels import undecided

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "CasesPage.ui"
UPDATE_AFTER_MS = 200


class CasesPage:
    """Shows the cases, adds and changes them, brings them into the Segment Editor and saves what was drawn there."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self._logic, self._project = logic, project
        self._openId = ""  # of the case that was opened last
        self._shown: Project | None = None
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.messages = MessageBox(self.ui.casesMessageWidget.layout())
        self.work = CaseWork(self.ui, self.messages, project)
        self.list = CaseList(self.ui.casesTree, self._thumbnail)
        self.adding = CaseAdding(self.ui.casesAddButton, self.work, project)
        self.menu = CaseMenu(self.ui.casesChangeButton, self.work, project, lambda: self.list.selection)
        self._thumbnails = CaseThumbnails(project)
        self._timer = newTimer()
        self._timer.setInterval(UPDATE_AFTER_MS)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.update)
        scene = slicer.mrmlScene
        self._tags = [scene.AddObserver(event, self._onSceneChanged) for event in (
            scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent, scene.EndCloseEvent)]
        self._connect()
        self.update()

    def setParameters(self, parameters: Any) -> None:
        """The scene that is open is another one."""
        self.update()

    def update(self) -> None:
        """Show what is there now."""
        if slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsBatchProcessing():
            self._timer.start()
            return
        project = self._project()
        if project is not self._shown:  # nothing of the one before means anything here
            self._shown, self._openId = project, ""
            self.list.select([])
            self.messages.tell("")
        cases = project.cases if project is not None else ()
        self.ui.casesNoProjectLabel.visible = project is None
        self.ui.casesEmptyLabel.visible = project is not None and not cases
        self.ui.casesProjectWidget.visible = project is not None
        self.ui.casesTree.visible = self.ui.casesCountLabel.visible = bool(cases)
        self.ui.casesOpenWidget.visible = bool(cases)
        self.ui.casesSpacerWidget.visible = not cases
        self.list.show(cases, frozenset(self._opened()))
        self.ui.casesCountLabel.text = countsText(cases)
        if not self.work.isBusy:
            self._thumbnails.wish(self.list.withoutThumbnail())
        self._updateButtons()

    def cleanup(self) -> None:
        """End what is under way and leave the scene alone, for good."""
        self.work.cancel()
        self._timer.stop()
        self._thumbnails.stop()
        self.list.stop()
        for tag in self._tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self._tags = []

    def select(self, caseIds: Sequence[str]) -> None:
        """Select cases, so that the buttons act on them."""
        self.list.select(caseIds)
        self._updateButtons()

    def open(self, caseId: str) -> bool:
        """Bring a case into the scene, and into the Segment Editor; where that cannot be done, the page tells why."""
        project = self._project()
        name = next((nameText(case) for case in project.cases if case.id == caseId), "") if project is not None else ""
        nodes = self.work.run(_("Opening {case}.").format(case=name), _("The case cannot be opened."),
                              lambda project, _report: project.openCase(caseId))
        if nodes is None:
            return False
        volumeNode, segmentationNode = nodes
        self._openId = caseId
        showSegmentation(segmentationNode, volumeNode)
        self.update()
        self.select([caseId])
        EditorSetup().openEditor(segmentationNode)
        return True

    def save(self) -> None:
        """Save the open case back into the project."""
        project, caseId = self._project(), self._saved()
        node = self._opened().get(caseId)
        if project is None or node is None:
            self.messages.tell(_("No case is open in the scene. Open one first."), isProblem=True)
            return
        case = project.case(caseId)
        known = {segment.name for segment in case.segments}
        unlike = [name for name in undecided(project.labels, segmentNames(node)) if name not in known]
        mapping = askMapping(project, unlike, nameText(case))
        if mapping is None:
            return
        saved = self.work.run(_("Saving {name}.").format(name=nameText(case)), _("The case was not saved."),
                              lambda project, _report: project.saveCase(node, case=caseId, mapping=mapping))
        if saved is not None:
            self._tellSaved(saved)

    def onOpen(self, clicked: bool = False) -> None:
        """Open the selected case."""
        if len(self.list.selection) == 1:
            self.open(self.list.selection[0])

    def onSave(self, clicked: bool = False) -> None:
        """Save the open case."""
        self.save()

    def onLabels(self, clicked: bool = False) -> None:
        """Open the dialog with the labels of the project."""
        project = self._project()
        if project is not None:
            LabelsDialog(project).show()

    def _connect(self) -> None:
        self.list.selected.connect(self._updateButtons)
        self.list.opened.connect(self.open)
        self.list.removed.connect(self.menu.onRemove)
        self.adding.added.connect(self.select)
        self._thumbnails.made.connect(self.list.updateThumbnail)
        self.work.busyChanged.connect(self.update)
        tree = self.ui.casesTree
        tree.setContextMenuPolicy(qt.Qt.CustomContextMenu)
        tree.customContextMenuRequested.connect(self._onContextMenu)
        self.ui.casesOpenButton.clicked.connect(self.onOpen)
        self.ui.casesSaveButton.clicked.connect(self.onSave)
        self.ui.casesLabelsButton.clicked.connect(self.onLabels)
        self.ui.casesRemoveButton.clicked.connect(self.menu.onRemove)

    def _tellSaved(self, case: ProjectCase) -> None:
        lines = [_("{name} was saved.").format(name=nameText(case)), *case.notes]
        if case.state == "unannotated":
            lines.append(missingText())
        self.messages.tell("\n".join(lines), isProblem=bool(case.notes) or case.state == "unannotated")

    def _thumbnail(self, case: ProjectCase) -> Path | None:
        project = self._project()
        return project.thumbnail(case) if project is not None else None

    def _opened(self) -> dict[str, Any]:
        """The segmentation nodes of the cases that are in the scene, by case."""
        project = self._project()
        if project is None:
            return {}
        nodes = [(caseOfNode(project, node), node) for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
        return {case.id: node for case, node in nodes if case is not None}

    def _saved(self) -> str:
        """The case that the button saves: the selected one where it is open, else the one that was opened last."""
        opened, selection = self._opened(), self.list.selection
        if len(selection) == 1 and selection[0] in opened:
            return selection[0]
        return self._openId if self._openId in opened else next(iter(opened), "")

    def _onSceneChanged(self, caller: object = None, event: object = None) -> None:
        self._timer.start()

    def _onContextMenu(self, point: qt.QPoint) -> None:
        if self.list.selection and not self.work.isBusy:
            self.menu.update()
            self.menu.menu.popup(self.ui.casesTree.viewport().mapToGlobal(point))

    def _updateButtons(self) -> None:
        project, selection, isIdle = self._project(), self.list.selection, not self.work.isBusy
        ui, saved = self.ui, self._saved()
        ui.casesAddButton.enabled = ui.casesLabelsButton.enabled = isIdle
        ui.casesChangeButton.enabled = ui.casesRemoveButton.enabled = isIdle and bool(selection)
        ui.casesOpenButton.enabled = isIdle and len(selection) == 1
        ui.casesSaveButton.enabled = isIdle and bool(saved)
        ui.casesSaveButton.toolTip = asPlainHtml(_("Save what was drawn on {name} into the project.").format(
            name=nameText(project.case(saved)))) if project is not None and saved else _(
            "No case is open in the scene.")
