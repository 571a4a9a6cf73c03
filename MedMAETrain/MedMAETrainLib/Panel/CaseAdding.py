"""The menu that brings cases into a project: from the scene, from files and folders, from the DICOM database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.SceneVolumes import imageVolumes
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.volumes.segments import Segment, default_segments
from MedMAETrainLib.LabelExport import segmentNames
from MedMAETrainLib.Panel.CaseDialogs import PairDialog
from MedMAETrainLib.Panel.CaseTexts import addedText
from MedMAETrainLib.Panel.CaseWork import CaseWork
from MedMAETrainLib.Panel.DicomDialog import DicomDialog, whyNoDicom
from MedMAETrainLib.Panel.LabelMappingDialog import LabelMappingDialog
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectImport import Added, caseOfNode, pairsOfScene
from MedMAETrainLib.ProjectLabels import undecided

Mapping = dict[str, str | None]


class CaseAdding:
    """``added(caseIds)`` comes when there are new cases; what was repaired or left out is told."""

    def __init__(self, button: Any, work: CaseWork, project: Callable[[], Project | None]) -> None:
        """`button` gets the menu."""
        self.added = Signal()
        self._work, self._project = work, project
        self.menu = qt.QMenu(button)
        self.pairAction = self._add(_("A volume of the scene..."), self.onPair)
        self.sceneAction = self._add(_("All annotated volumes of the scene"), self.onScene)
        self.menu.addSeparator()
        self.filesAction = self._add(_("Image files..."), self.onFiles)
        self.folderAction = self._add(_("A folder of images..."), self.onFolder)
        self.dicomAction = self._add(_("From the DICOM database..."), self.onDicom)
        button.setMenu(self.menu)
        self.menu.aboutToShow.connect(self.update)

    def update(self) -> None:
        """Offer what is possible now."""
        hasVolumes = bool(imageVolumes())
        self.pairAction.enabled = self.sceneAction.enabled = hasVolumes

    def onPair(self, checked: bool = False) -> None:
        """Ask for a volume and its segmentation, and add them."""
        project = self._project()
        if project is None:
            return
        new = [node for node in imageVolumes() if caseOfNode(project, node) is None]
        dialog = PairDialog((new or [None])[0], project.classes)
        if not dialog.show() or dialog.volume is None:
            return
        volumeNode, segmentationNode = dialog.volume, dialog.segmentation
        names = segmentNames(segmentationNode) if segmentationNode is not None else []
        mapping = askMapping(project, undecided(project.labels, names), volumeNode.GetName())
        if mapping is None:
            return
        case = self._work.run(
            _("Adding {name}.").format(name=volumeNode.GetName()), _("The case was not added."),
            lambda project, _report: project.addCase(volumeNode, segmentationNode, mapping=mapping, **dialog.choices))
        self._tell(Added([case]) if case is not None else None)

    def onScene(self, checked: bool = False) -> None:
        """Add all volumes of the scene that have a segmentation."""
        project = self._project()
        if project is None:
            return
        pairs, unpaired = pairsOfScene()
        if not pairs:
            self._tell(Added([], unpaired) if unpaired else None)
            if not unpaired:
                self._work.messages.tell(_("No volume of the scene has a segmentation. Draw one in the Segment Editor, "
                                           "or add volumes one by one."), isProblem=True)
            return
        labels, asked = project.labels, []
        drawn = [segmentNames(node) for volumeNode, node in pairs if caseOfNode(project, volumeNode) is None]
        if not labels and drawn:  # the segments of the first case are the first labels
            labels = tuple(default_segments({name: number for number, name in enumerate(drawn[0], 1)}))
        for names in drawn:
            asked += [name for name in undecided(labels, names) if name not in asked]
        mapping = askMapping(project, asked, _("The scene"), labels)
        if mapping is not None:
            self._tell(self._work.run(
                _("Adding"), _("The cases were not added."),
                lambda project, report: project.addScene(mapping=mapping, progressCallback=report)))

    def onFiles(self, checked: bool = False) -> None:
        """Ask for image files and add them."""
        answer = qt.QFileDialog.getOpenFileNames(slicer.util.mainWindow(), _("Images to add"))
        files = answer[0] if answer and isinstance(answer[0], (list, tuple)) else answer  # PySide gives the filter too
        if files:
            self._addImages(list(files))

    def onFolder(self, checked: bool = False) -> None:
        """Ask for a folder and add all images in it."""
        folder = dialogs.folderToRead(_("The folder with the images"))
        if folder:
            self._addImages([folder])

    def onDicom(self, checked: bool = False) -> None:
        """Ask for series of the DICOM database and add them."""
        project, problem = self._project(), whyNoDicom()
        if problem:
            self._work.messages.tell(problem, isProblem=True)
            return
        if project is None:
            return
        dialog = DicomDialog({case.source.series for case in project.cases if case.source.series})
        if dialog.show() and dialog.chosen:
            chosen = dialog.chosen
            self._tell(self._work.run(_("Adding"), _("The series were not added."), lambda project, report:
                                      project.addDicom(chosen, progressCallback=report)))

    def _addImages(self, paths: list[str]) -> None:
        self._tell(self._work.run(_("Adding"), _("The images were not added."), lambda project, report:
                                  project.addImages(paths, progressCallback=report)))

    def _tell(self, added: Added | None) -> None:
        if added is None:  # why was told
            return
        isProblem = bool(added.skipped) or any(case.notes for case in added.cases)
        project = self._project()
        self._work.messages.tell(addedText(added, project.cases if project is not None else ()), isProblem)
        self.added.emit([case.id for case in added.cases])

    def _add(self, text: str, do: Callable[..., None]) -> Any:
        action = self.menu.addAction(text)
        action.triggered.connect(do)
        return action


def askMapping(project: Project, segments: list[str], what: str,
               labels: tuple[Segment, ...] | None = None) -> Mapping | None:
    """Ask which labels segments are, where there are such; None: the user has cancelled."""
    if not segments:
        return {}
    dialog = LabelMappingDialog(labels or project.labels, segments, what)
    return dialog.mapping if dialog.show() else None
