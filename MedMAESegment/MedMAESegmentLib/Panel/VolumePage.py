"""The tab "Volume": one image, one button, how far it is, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import slicer
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAESegmentLib.EstimateJob import EstimateJob
from MedMAESegmentLib.FollowedJob import FollowedJob, ProgressCallback, duration
from MedMAESegmentLib.ImageWarnings import ImageWarning
from MedMAESegmentLib.Panel.ChannelSelectors import ChannelSelectors
from MedMAESegmentLib.Panel.Choices import Choices
from MedMAESegmentLib.Panel.Dialogs import errorsAreTold, isConfirmed, tellError
from MedMAESegmentLib.Panel.EstimateLine import EstimateLine
from MedMAESegmentLib.Panel.RemoteConsent import RemoteConsent
from MedMAESegmentLib.Panel.ResultTable import ResultTable
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from MedMAESegmentLib.Panel.VolumeRun import VolumeRun
from MedMAESegmentLib.Panel.WarningsBox import WarningsBox
from MedMAESegmentLib.Region import fitToVolume
from MedMAESegmentLib.Signal import Signal


class VolumePage:
    """Shows the run of the chosen volume. Another volume can be begun meanwhile; it is computed afterwards.

    ``busyChanged()`` comes when a run begins or ends.
    """

    def __init__(self, ui: SimpleNamespace, logic: Any, choices: Callable[[], Choices], consent: RemoteConsent) -> None:
        """`logic` is a `MedMAESegmentLogic`; `choices` gives the model and options that are chosen at the moment."""
        self.busyChanged = Signal()
        self._ui, self._logic, self._choices, self._consent = ui, logic, choices, consent
        self._parameters: Any = None
        self._inputVolume: slicer.vtkMRMLVolumeNode | None = None
        self._runs: list[VolumeRun] = []
        self._isUpdating = False
        self._channels = ChannelSelectors(ui)
        self._warnings = WarningsBox(ui, self._examine)
        self._estimate = EstimateLine(ui.estimateLabel, self._askForEstimate)
        self._table = ResultTable(ui.resultTable)
        self._warnings.changed.connect(self._estimate.clear)
        self._warnings.examined.connect(self._estimate.ask)
        self._estimate.measured.connect(self._warnings.refresh)
        self._channels.changed.connect(self._onChannelsChanged)
        ui.roiSelector.nodeAddedByUser.connect(self._onRoiAdded)
        ui.segmentButton.clicked.connect(self.onSegmentButton)
        self._singleClicks = SingleClicks(ui.segmentButton)
        ui.editButton.clicked.connect(self.onEditButton)
        self._show()

    @property
    def isBusy(self) -> bool:
        """Whether a run is under way, of the chosen volume or of another."""
        return any(run.isBusy for run in self._runs)

    def setParameters(self, parameters: Any) -> None:
        """Show the choices of a parameter node; None: another module is open, or the scene is being closed."""
        self._parameters = parameters
        self._inputVolume = parameters.inputVolume if parameters is not None else None
        self.update()

    def update(self) -> None:
        """Show what is chosen now."""
        if self._isUpdating:  # by the parameters that are set here
            return
        self._isUpdating = True
        try:
            self._takeOver()
            self._show()
        finally:
            self._isUpdating = False

    def cancel(self) -> None:
        """End every run and forget what was found: the volumes are about to go."""
        for run in list(self._runs):
            run.cancel()
        self._runs = []
        self._warnings.forget()
        self._show()

    def onSegmentButton(self, clicked: bool = False) -> None:
        """Start with the chosen volume, or cancel what was started with it."""
        run = self._shownRun()
        if run is not None and run.isBusy:
            run.cancel()
        elif self._mayBegin():
            self._begin()

    def onEditButton(self, clicked: bool = False) -> None:
        """Open the result in the Segment Editor."""
        self._logic.openEditor(self._parameters.segmentation)

    def _begin(self) -> None:
        volumes, choices, parameters = self._channels.volumes, self._choices(), self._parameters
        run = VolumeRun(volumes[0], choices)
        self._runs = [other for other in self._runs
                      if other.isBusy or other.volume.node not in (None, volumes[0])] + [run]
        run.changed.connect(self._onRunChanged)
        self._show()
        self.busyChanged.emit()
        try:
            with errorsAreTold(_failure(choices)):
                run.start(lambda report: self._start(volumes, choices, parameters, report))
        finally:
            if run.state == "failed" and run.job is None and run in self._runs:  # the reason was shown
                self._runs.remove(run)
                self._show()

    def _start(self, volumes: list[Any], choices: Choices, parameters: Any, report: ProgressCallback) -> FollowedJob:
        if choices.isClassification:
            return self._logic.classify(volumes, choices.model, device=choices.device, progressCallback=report,
                                        waitForCompletion=False)
        return self._logic.segment(volumes, choices.model, parameters.segmentation, roiNode=parameters.roi,
                                   replaceExisting=parameters.replaceExisting, progressCallback=report,
                                   waitForCompletion=False, **choices.arguments())

    def _mayBegin(self) -> bool:
        """Ask once about everything that should not happen unasked."""
        choices = self._choices()
        target = None if choices.isClassification else choices.target
        questions = [*self._warnings.questions(), self._consent.question(target), self._replacement(choices)]
        questions = [question for question in questions if question]
        if questions and not isConfirmed("\n\n".join([*questions, _("Go on?")])):
            return False
        self._warnings.accept()
        self._consent.give(target)
        return True

    def _replacement(self, choices: Choices) -> str | None:
        """What to ask before segments are replaced, which the user may have corrected."""
        segmentation = self._parameters.segmentation
        if choices.isClassification or not self._parameters.replaceExisting:
            return None
        names = self._logic.replacedSegments(segmentation, choices.info)
        text = _("The segments {names} in {segmentation} will be replaced.")
        return text.format(names=", ".join(names), segmentation=segmentation.GetName()) if names else None

    def _examine(self) -> list[ImageWarning]:
        volumes, choices = self._channels.volumes, self._choices()
        roi = None if choices.isClassification else self._parameters.roi
        return self._logic.warnings(volumes, choices.model, roi)

    def _askForEstimate(self) -> EstimateJob | None:
        """Ask a worker that is running and has nothing else to do; nothing is installed or started for an estimate."""
        choices, worker = self._choices(), self._logic.worker
        isElsewhere = choices.isClassification or choices.target is not None
        if isElsewhere or self._parameters is None or not worker.starts or self._logic.jobs:
            return None
        options = {name: value for name, value in choices.options.items() if name != "smoothing"}
        try:
            return self._logic.estimate(self._channels.volumes, choices.model, self._parameters.roi, choices.device,
                                        waitForCompletion=False, **options)
        except (ValueError, BadInput):  # the warnings tell why the volumes cannot be segmented
            return None

    def _onChannelsChanged(self) -> None:
        if self._parameters is not None:
            self._parameters.otherVolumes = self._channels.volumes[1:]

    def _onRoiAdded(self, roiNode: slicer.vtkMRMLMarkupsROINode) -> None:
        roiNode.CreateDefaultDisplayNodes()
        volume = self._channels.volumes[0]
        if volume is not None:
            fitToVolume(roiNode, volume)

    def _onRunChanged(self, run: VolumeRun) -> None:
        if run.state == "done":
            self._takeResult(run)
        self._show()
        if run.isBusy:
            return
        self.busyChanged.emit()
        if run.state == "failed" and run.job is not None:
            tellError(f"{_failure(run.choices)}\n\n{run.job.error}")

    def _takeResult(self, run: VolumeRun) -> None:
        parameters = self._logic.getParameterNode()  # another module may be open by now, with the panel disconnected
        if not run.choices.isClassification and parameters.inputVolume is run.volume.node:
            parameters.segmentation = run.job.result

    def _takeOver(self) -> None:
        """Bring the selectors and the region to what is chosen."""
        parameters = self._parameters
        if parameters is None:
            self._warnings.watch([], None)
            return
        choices = self._choices()
        self._channels.update(choices.info, list(parameters.otherVolumes))
        if parameters.inputVolume is not self._inputVolume:
            self._inputVolume = parameters.inputVolume
            self._changeSegmentation()
        isReady = choices.info is not None and not self._channels.missing()
        roi = [parameters.roi] if parameters.roi is not None and not choices.isClassification else []
        self._warnings.watch([*self._channels.volumes, *roi] if isReady else [], choices.info)

    def _changeSegmentation(self) -> None:
        """Another volume was chosen: its result must not go into the last one's, and what it has is shown."""
        parameters, run = self._parameters, self._shownRun()
        isThere = run is not None and run.state == "done" and not run.choices.isClassification
        result, segmentation = _inScene(run.job.result) if isThere else None, parameters.segmentation
        isMissing = segmentation is None and result is not None
        if isMissing or self._logic.isResultOfAnother(segmentation, parameters.inputVolume):
            parameters.segmentation = result

    def _shownRun(self) -> VolumeRun | None:
        volume = self._channels.volumes[0]
        return next((run for run in reversed(self._runs) if volume is not None and run.volume.node is volume), None)

    def _show(self) -> None:
        choices, run = self._choices(), self._shownRun()
        self._showTask(choices)
        self._showButton(choices, run)
        self._showRun(choices, run)

    def _showTask(self, choices: Choices) -> None:
        ui, segmentation = self._ui, self._parameters.segmentation if self._parameters is not None else None
        for widget in (ui.roiLabel, ui.roiSelector, ui.segmentationLabel, ui.segmentationSelector, ui.resultButtons):
            widget.visible = not choices.isClassification
        ui.show3DButton.setSegmentationNode(segmentation)
        ui.show3DButton.enabled = ui.editButton.enabled = segmentation is not None

    def _showButton(self, choices: Choices, run: VolumeRun | None) -> None:
        button, missing = self._ui.segmentButton, self._whatIsMissing(choices)
        if run is not None and run.isBusy:
            button.text, button.toolTip, button.enabled = _("Cancel"), _("End the computation at once."), True
            return
        if choices.isClassification:
            button.text, ready = _("Classify"), _("Tell the class of the image.")
        else:
            button.text, ready = _("Segment"), _("Segment the volume with the model.")
        button.toolTip, button.enabled = missing or ready, not missing

    def _whatIsMissing(self, choices: Choices) -> str:
        if self._parameters is None:
            return _("Choose a volume and a model.")
        missing = self._channels.missing()
        if choices.info is None:
            return _("Choose a volume and a model.") if missing else _("Choose a model.")
        if missing == [""]:
            return _("Choose a volume.")
        return _("Choose a volume for {channels}.").format(channels=", ".join(missing)) if missing else ""

    def _showRun(self, choices: Choices, run: VolumeRun | None) -> None:
        self._ui.progressBar.visible = run is not None and run.isBusy
        self._ui.statusLabel.text = self._whatIsMissing(choices) if run is None else _status(run)
        self._ui.statusLabel.visible = bool(self._ui.statusLabel.text)
        if run is None or run.state != "done":
            self._table.clear()
        elif run.choices.isClassification:
            self._table.showClasses(run.job.result)
        else:
            self._table.showSegments(run.job.segments, _inScene(run.job.result))
        if run is not None:
            self._ui.progressBar.setValue(round(1000 * run.fraction))


def _status(run: VolumeRun) -> str:
    """How a run stands, in words."""
    if run.isBusy:
        return run.message
    if run.state == "cancelled":
        return _("Cancelled.")
    if run.state == "failed":
        return str(run.job.error) if run.job is not None else ""
    time = duration(max(run.seconds, 1))
    if run.choices.isClassification:
        return _("Done in {time}: {label}.").format(time=time, label=run.job.result.label)
    return _("Done in {time}.").format(time=time)


def _failure(choices: Choices) -> str:
    if choices.isClassification:
        return _("The volume could not be classified.")
    return _("The volume could not be segmented.")


def _inScene(node: slicer.vtkMRMLNode) -> slicer.vtkMRMLNode | None:
    return node if node.GetScene() is slicer.mrmlScene else None
