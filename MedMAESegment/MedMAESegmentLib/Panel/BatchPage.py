"""The tab "Batch": the loaded volumes or the images of a folder, segmented one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.BatchCase import BatchCase
from MedMAESegmentLib.BatchJob import resultsOf
from MedMAESegmentLib.FolderBatchJob import bookOf
from MedMAESegmentLib.FolderListing import FolderListing, defaultOutput
from MedMAESegmentLib.FollowedJob import FollowedJob
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.Panel.BatchFields import BatchFields
from MedMAESegmentLib.Panel.BatchResults import loadResult, showResult
from MedMAESegmentLib.Panel.BatchTexts import hasBrokenOff, hintText, progressText, summaryText
from MedMAESegmentLib.Panel.CaseTable import CaseTable
from MedMAESegmentLib.Panel.Choices import Choices
from MedMAESegmentLib.Panel.Dialogs import errorsAreTold, isConfirmed, tellError
from MedMAESegmentLib.Panel.RemoteConsent import RemoteConsent
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from MedMAESegmentLib.SceneVolumes import imageVolumes
from MedMAESegmentLib.SegmentationFile import isSavedIn
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Suitability import refuseManyChannels

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "BatchPage.ui"
UPDATE_AFTER_MS = 200
LOOK_EVERY_MS = 50


class BatchPage:
    """Shows the cases and how they stand, starts and cancels a batch, and opens its results.

    ``busyChanged()`` comes when a batch begins or ends.
    """

    def __init__(self, parentWidget: qt.QWidget, logic: Any, choices: Callable[[], Choices],
                 consent: RemoteConsent | None = None) -> None:
        """`logic` is a `MedMAESegmentLogic`; `choices` gives the model and options that are chosen at the moment."""
        self.busyChanged = Signal()
        self._logic, self._choices, self._consent = logic, choices, consent or RemoteConsent()
        self._job: Any = None
        self._lister: BackgroundTask[FolderListing] | None = None
        self._starting: Choices | None = None  # what the user has started with, while images are looked for
        self._version = ""  # of the model for which the cases are listed
        self._listing: FolderListing | None = None
        self._volumes: list[NodeReference] = []
        self._running: int | None = None
        self._cases: list[BatchCase] = []
        self._keys: list[Any] = []  # what each case is, whatever row it is in
        self._left: dict[Any, BatchCase] = {}  # how cases of this sitting ended, by their keys
        self._rows: list[int] = []  # of the job's cases
        self._shown: Any = None
        self._listProblem, self._wasBusy = "", False
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.fields = BatchFields(self.ui, logic)
        self.table = CaseTable(self.ui.batchTable)
        self._listTimer, self._updateTimer = newTimer(), newTimer()
        self._listTimer.setInterval(LOOK_EVERY_MS)
        self._listTimer.timeout.connect(self._onListTimer)
        self._updateTimer.setInterval(UPDATE_AFTER_MS)
        self._updateTimer.setSingleShot(True)
        self._updateTimer.timeout.connect(self.update)
        scene = slicer.mrmlScene
        self._tags = [scene.AddObserver(event, self._onSceneChanged) for event in (
            scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndImportEvent)]
        self._tags.append(scene.AddObserver(scene.EndCloseEvent, self._onSceneClosed))
        self.fields.changed.connect(self.update)
        self.table.opened.connect(self.openResult)
        self.table.selected.connect(self._updateButtons)
        self.table.checked.connect(self._updateButtons)
        self.ui.batchAgainCheckBox.toggled.connect(lambda _checked: self._updateButtons())
        self.ui.batchButton.clicked.connect(self.onButton)
        self._singleClicks = SingleClicks(self.ui.batchButton)
        self.ui.batchOpenButton.clicked.connect(self.onOpen)
        self.ui.batchShowFolderButton.clicked.connect(self.onShowFolder)
        self._say("")
        self.update()

    @property
    def isBusy(self) -> bool:
        """Whether a batch is under way."""
        return self._job is not None or self._starting is not None

    def cleanup(self) -> None:
        """End everything and leave the scene alone, for good."""
        self.cancel()
        self._stopListing()
        self._updateTimer.stop()
        self.table.stop()
        for tag in self._tags:
            slicer.mrmlScene.RemoveObserver(tag)
        self._tags = []

    def cancel(self) -> None:
        """End the batch; finished cases stay."""
        if self._starting is not None:
            self._stopListing()
            self._setStarting(None)
        if self._job is not None:
            self._job.cancel()

    def update(self) -> None:
        """Show what is in the scene and what is chosen now; cheap where nothing has changed."""
        if slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsBatchProcessing():
            self._updateTimer.start()
            return
        self.fields.read()
        if not self.isBusy and self.fields.isFolder:
            self._listFolder()
        elif not self.isBusy:
            self._listVolumes()
        self._updateButtons()

    def onButton(self, clicked: bool = False) -> None:
        """Start, or cancel what was started."""
        if self.isBusy:
            self.cancel()
            return
        choices = self._choices()
        question = self._consent.question(choices.target)
        if question is not None and not isConfirmed(question):
            return
        self._consent.give(choices.target)
        self._say("")
        self._setStarting(choices)
        if self.fields.isFolder:
            self._beginListing(choices)  # once more: files may have come or gone since
        else:
            self._start(choices)

    def onOpen(self, clicked: bool = False) -> None:
        """Open the result of the selected case."""
        if self.table.selection is not None:
            self.openResult(self.table.selection)

    def openResult(self, index: int) -> None:
        """Show the result of a case over its image; of a folder, both are loaded."""
        result = self._cases[index].result
        if result is None:
            return
        with errorsAreTold(_("The result could not be opened.")):
            if isinstance(result, Path):
                assert self._listing is not None
                volumeNode, node = loadResult(self._listing.images[index].path, result)
                showResult(self._logic, node, volumeNode)
            elif result.GetScene() is slicer.mrmlScene:
                showResult(self._logic, result)
            else:
                raise ValueError(_("It was removed from the scene. Segment the volume again."))

    def onShowFolder(self, clicked: bool = False) -> None:
        """Open the folder with the results in the file manager."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._output())))

    def _whyNot(self, choices: Choices) -> str:
        """Why nothing can be segmented with these choices; empty where it can."""
        if self.fields.unconfirmed:
            return _("The scene names a folder on another computer: {folder}. Press Enter in its field to "
                     "use it.").format(folder=self.fields.unconfirmed)
        if choices.info is None:
            return _("Choose a model.")
        if choices.isClassification:
            return _("{model} tells the class of an image and draws nothing. Choose a model that segments, or classify "
                     "one image after the other in the tab Volume.").format(model=choices.model)
        try:
            refuseManyChannels(choices.info)
        except ValueError as error:
            return str(error)
        return "" if not self.fields.isFolder or self.fields.folder else _("Choose the folder with the images.")

    def _listVolumes(self) -> None:
        self._stopListing()
        self._listing = None
        info, volumes = self._choices().info, imageVolumes()
        version = info.weights_sha256 if info is not None else ""
        done, output = resultsOf(version) if version else {}, self.fields.output
        found = [(node.GetID(), node.GetName(), done.get(node.GetID())) for node in volumes]
        unsaved = [output is not None and result is not None and not isSavedIn(result, output)
                   for _nodeID, _name, result in found]
        if (version, found, unsaved) == self._shown:
            return
        checkOf = {reference.node: isOn for reference, isOn in zip(self._volumes, self.table.checks, strict=False)}
        self._shown, self._volumes = (version, found, unsaved), [NodeReference(node) for node in volumes]
        self._keys = [(version, nodeID) for nodeID, _name, _result in found]
        cases = [BatchCase(name, result=result) for _nodeID, name, result in found]
        for case, isUnsaved in zip(cases, unsaved, strict=True):
            if isUnsaved:
                case.message = _("segmented, not saved yet")
            elif case.result is not None:
                case.state, case.wasDoneBefore = "done", True
        self._cases = [self._leftCase(key, case) for key, case in zip(self._keys, cases, strict=True)]
        self.table.show(self._cases, [checkOf.get(node, True) for node in volumes])

    def _listFolder(self) -> None:
        choices = self._choices()
        version = choices.info.weights_sha256 if choices.info is not None else ""
        shown = (self.fields.folder, self.fields.output, version, _engineOptions(choices))
        if shown == self._shown and (self._lister is not None or not self._listProblem):
            return
        self._listProblem = self._listProblem if shown == self._shown else ""
        self._shown, self._listing, self._volumes, self._keys, self._cases = shown, None, [], [], []
        self.table.show([])
        self._stopListing()
        if not self._whyNot(choices):
            self._beginListing(choices)

    def _beginListing(self, choices: Choices) -> None:
        """Look for the images in a thread."""
        self._version = choices.info.weights_sha256
        try:
            lister = self._logic.folderLister(self.fields.folder, choices.model, self.fields.output,
                                              **_engineOptions(choices))
        except (ValueError, BadInput) as error:
            self._endListing(str(error))
            return
        self._lister = BackgroundTask(lister)
        self._listTimer.start()

    def _stopListing(self) -> None:
        """Nobody waits for the thread any more, which ends by itself."""
        self._lister = None
        self._listTimer.stop()

    def _endListing(self, problem: str) -> None:
        self._stopListing()
        self._listProblem = problem
        if problem:
            self._setStarting(None)

    def _onListTimer(self) -> None:
        lister = self._lister
        if lister is None or not lister.isOver:
            return
        try:
            listing = lister.result()
        except (ValueError, BadInput, OSError) as error:
            self._endListing(str(error))
        else:
            self._endListing("")
            self._takeListing(listing)
            if self._starting is not None:
                self._start(self._starting)
        self._updateButtons()

    def _takeListing(self, listing: FolderListing) -> None:
        self._listing = listing
        self._keys = [(self._version, image.path) for image in listing.images]
        self._cases = [self._leftCase(key, case)
                       for key, case in zip(self._keys, bookOf(listing, again=False).cases, strict=True)]
        self.table.show(self._cases)

    def _leftCase(self, key: Any, case: BatchCase) -> BatchCase:
        """A case with what was told of it when it ended, where that still holds."""
        left = self._left.get(key)
        holds = left is not None and (left.state == "done") == (case.state == "done")
        return replace(left, name=case.name) if left is not None and holds else case

    def _start(self, choices: Choices) -> None:
        """Begin the job; what cannot be begun is told."""
        again = bool(self.ui.batchAgainCheckBox.checked)
        try:
            with errorsAreTold(_("The batch could not be started.")):
                if self._listing is not None:
                    self._rows = list(range(len(self._cases)))
                    job = self._logic.folderBatch(self._listing, choices.model, again=again, device=choices.device,
                                                  target=choices.target, **_engineOptions(choices))
                else:
                    nodes = [reference.node for reference in self._volumes]
                    self._rows = [row for row, isOn in enumerate(self.table.checks) if isOn and nodes[row] is not None]
                    job = self._logic.sceneBatch([nodes[row] for row in self._rows], choices.model, self.fields.output,
                                                 again=again, **choices.arguments())
                self._follow(job)
        finally:
            self._setStarting(None)

    def _follow(self, job: Any) -> None:
        self._job, self._running = job, None
        for row, case in zip(self._rows, job.cases, strict=True):
            self._cases[row] = case
            self.table.update(row)
        job.book.changed.connect(self._onCaseChanged)
        job.progressed.connect(self._onProgress)
        job.finished.connect(self._onFinished)

    def _onCaseChanged(self, index: int) -> None:
        row = self._rows[index]
        self.table.update(row)
        if self._cases[row].state == "running" and self._running != index:
            self._running = index
            self.table.scrollTo(row)
        self._updateOpenButton()

    def _onProgress(self, fraction: float, message: str) -> None:
        self.ui.batchProgressBar.setValue(round(1000 * fraction))
        self._say(progressText(self._job))

    def _onFinished(self, job: FollowedJob) -> None:
        self._job = None
        for row, case in zip(self._rows, job.cases, strict=True):  # type: ignore[attr-defined]
            self._left[self._keys[row]] = case
        self._say(summaryText(job))
        self._setStarting(None)
        self._updateTimer.start()  # another model may have been chosen meanwhile
        if hasBrokenOff(job):
            tellError(_("The batch has failed.") + "\n\n" + str(job.error))

    def _say(self, text: str) -> None:
        self.ui.batchStatusLabel.text, self.ui.batchStatusLabel.visible = text, bool(text)

    def _setStarting(self, choices: Choices | None) -> None:
        self._starting = choices
        self._updateButtons()
        if self._wasBusy != self.isBusy:
            self._wasBusy = self.isBusy
            self.busyChanged.emit()

    def _output(self) -> Path | None:
        """The folder for the results."""
        if not self.fields.isFolder or self.fields.output is not None:
            return self.fields.output
        info, folder = self._choices().info, self.fields.folder
        return defaultOutput(folder, info) if info is not None and folder is not None else None

    def _todo(self) -> int:
        """How many cases are to be done."""
        again = bool(self.ui.batchAgainCheckBox.checked)
        return sum(isOn and (again or case.state != "done")
                   for case, isOn in zip(self._cases, self.table.checks, strict=True))

    def _updateButtons(self) -> None:
        choices, isBusy, output = self._choices(), self.isBusy, self._output()
        self.ui.batchProgressBar.visible = isBusy
        self.fields.setEnabled(not isBusy)
        self.fields.showDefault(output)
        self.ui.batchAgainCheckBox.enabled = not isBusy
        self.table.setCheckable(not isBusy)
        problem = self._whyNot(choices) or self._whyNothing()
        self.ui.batchHintLabel.text = problem or hintText(choices, self._listing, self.fields.isFolder)
        self.ui.batchHintLabel.visible = bool(self.ui.batchHintLabel.text) and not isBusy
        button, todo = self.ui.batchButton, self._todo()
        if isBusy:
            button.text, button.toolTip, button.enabled = _("Cancel"), _("End it at once; finished cases stay."), True
        else:
            isAll = todo in (0, len(self._cases))
            button.text = _("Segment all") if isAll else _("Segment {number} of {count}").format(
                number=todo, count=len(self._cases))
            button.enabled = not problem and self._lister is None and todo > 0
            button.toolTip = problem or _("Segment them one after the other; one that fails does not stop the others.")
        self.ui.batchShowFolderButton.enabled = output is not None and os.path.isdir(output)  # noqa: PTH112 - where one may not look, too
        self._updateOpenButton()

    def _whyNothing(self) -> str:
        """Why there is nothing to be done with the images; empty where there is, or while they are looked for."""
        if self.fields.isFolder:
            if self._listProblem or self._lister is not None:
                return self._listProblem or _("Looking for images...")
            if self._listing is not None and self._listing.difference and not self.ui.batchAgainCheckBox.checked:
                return hintText(self._choices(), self._listing, True)
        elif not self._cases:
            return _("Load the volumes, or choose a folder.")
        if self._cases and not self._todo():
            return _("All are done.") if all(self.table.checks) else _("Nothing is left to do of what is chosen.")
        return ""

    def _updateOpenButton(self) -> None:
        selection = self.table.selection
        hasResult = selection is not None and self._cases[selection].result is not None
        self.ui.batchOpenButton.enabled = hasResult
        self.ui.batchOpenButton.toolTip = _("Show the result over its image.") if hasResult else _(
            "Select a case that is done.")

    def _onSceneClosed(self, caller: Any = None, event: Any = None) -> None:
        """Forget the volumes: others will have their IDs."""
        self._left = {key: case for key, case in self._left.items() if isinstance(key[1], Path)}
        self._updateTimer.start()

    def _onSceneChanged(self, caller: Any = None, event: Any = None) -> None:
        """Look at the scene soon, when whatever is changing it has finished."""
        self._updateTimer.start()


def _engineOptions(choices: Choices) -> dict[str, Any]:
    """The options that count for files, which hold no surfaces."""
    return {name: value for name, value in choices.options.items() if name != "smoothing"}
