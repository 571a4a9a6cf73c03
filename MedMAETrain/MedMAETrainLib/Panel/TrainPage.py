"""The tab "Train": what to learn, what to start from, where to compute, and starting."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.ModelShelf import ModelShelf
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Panel.Choices import TARGET_PREFIX
from MedMAESegmentLib.Panel.ComputeSelector import ComputeSelector
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from medmae.jobs.targets import find_target
from MedMAETrainLib.Panel.CaseTexts import named, nameText
from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog
from MedMAETrainLib.Panel.TrainFacts import TrainFacts
from MedMAETrainLib.Panel.TrainSettings import TrainSettings
from MedMAETrainLib.Panel.TrainStart import TrainStart
from MedMAETrainLib.Panel.TrainTexts import consentText, dataText, sendingText
from MedMAETrainLib.Panel.TrainTrial import TrainTrial
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectDataset import datasetOf, modalityOf
from MedMAETrainLib.Recommendation import Purpose, recommendNetwork, recommendSettings
from MedMAETrainLib.RunPlan import RunPlan
from MedMAETrainLib.StartLogic import casesFor
from MedMAETrainLib.TrainRequest import PRETRAINING, TrainRequest
from MedMAETrainLib.Trial import Trial

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "TrainPage.ui"
_log = logging.getLogger(__name__)


class TrainPage:
    """Starts runs; ``started(job)`` comes when one was."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self.started = Signal()
        self._logic, self._project, self._parameters = logic, project, None
        self._consents: dict[tuple[str, str], set[str]] = {}  # (target, project) to cases that may go there
        self._isStarting = self._isCancelled = False
        self._measured: TrainRequest | None = None  # what the last trial was of
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.facts = TrainFacts()
        self.start = TrainStart(self.ui, logic)
        self.settings = TrainSettings(self.ui)
        self.compute = ComputeSelector(self.ui.trainComputeSelector, _("{name} (elsewhere)"))
        self.trial = TrainTrial(self.ui, self._newTrial)
        icon = self.ui.trainProblemFrame.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        self.ui.trainProblemIcon.setPixmap(icon.pixmap(16, 16))
        self.facts.changed.connect(self._show)
        self.start.changed.connect(self._onStartChanged)
        self.start.busy.connect(self._say)
        self.settings.changed.connect(self._onChanged)
        self.compute.changed.connect(self._onChanged)
        self.trial.changed.connect(self._updateButtons)
        self.ui.trainNameEdit.editingFinished.connect(self._write)
        self.ui.trainComputersButton.clicked.connect(self.onComputers)
        self.ui.trainStartButton.clicked.connect(self.onStart)
        self.ui.trainQueueButton.clicked.connect(self.onQueue)
        self._singleClicks = SingleClicks(self.ui.trainStartButton, self.ui.trainQueueButton)
        self._say("")
        self.update()

    @property
    def request(self) -> TrainRequest:
        """The run that is chosen."""
        isScratch = self.start.point is None
        method, preset = self.start.network if isScratch else (None, None)
        value = self.compute.value
        isTarget = value.startswith(TARGET_PREFIX)
        return TrainRequest(
            self.start.task, self.start.reference, method, preset, "auto" if isTarget else value,
            value.removeprefix(TARGET_PREFIX) if isTarget else None, self.settings.values, self.name)

    @property
    def name(self) -> str:
        """The name of the finished model: what was entered, else what is proposed."""
        return self.ui.trainNameEdit.text.strip() or str(self.ui.trainNameEdit.placeholderText)

    def setParameters(self, parameters: Any) -> None:
        """Show the choices of a parameter node; None: another module is open, or the scene is being closed."""
        self._parameters = None  # while it is read, nothing is written
        if parameters is not None:
            self.start.read(parameters.task, parameters.startFrom, parameters.method, parameters.preset)
            self.settings.json = parameters.settings
            self.ui.trainNameEdit.text = parameters.modelName
            self.compute.update()
            self.compute.value = parameters.computeOn
        self._parameters = parameters
        self.update()

    def update(self) -> None:
        """Show what is there now."""
        self.compute.update()
        if self._parameters is not None:  # another page may have changed it
            self.compute.value = self._parameters.computeOn
        self.facts.look(self._project())
        self._show()

    def _show(self) -> None:
        """Show what is known now of the project and the computer."""
        project = self._project()
        self.ui.trainNoProjectLabel.visible, self.ui.trainBody.visible = project is None, project is not None
        if project is None:
            self.trial.forget()
            return
        cases, fingerprint = self._cases(project), self.facts.fingerprint
        computer = self.facts.computer(self.compute.value)
        modality = modalityOf(project)
        network = recommendNetwork(self.start.task, fingerprint.of(cases), len(cases), computer)
        self.start.update(project, network, modality)
        method, preset = self.start.network
        purpose = Purpose(self.start.task, method, preset, modality, self._inputSize(),
                          self.start.point is not None)
        self.settings.show(purpose, recommendSettings(purpose, fingerprint.of(cases), computer))
        self.ui.trainDataLabel.text = dataText(project, self.start.task)
        self.ui.trainNameEdit.placeholderText = self._proposedName(project)
        self.ui.trainComputeHelpLabel.text = self.compute.note or self._sendingText(cases)
        self.ui.trainComputeHelpLabel.visible = bool(self.ui.trainComputeHelpLabel.text)
        if self._measured is not None and self._measured != self._nameless(self.request):
            self._measured = None
            self.trial.forget()
        self._updateButtons()

    def cleanup(self) -> None:
        """The module is closed."""
        self.trial.cancel()
        self.facts.close()

    def startFrom(self, name: str) -> None:
        """Choose the encoder or model to start from, for finetuning."""
        task = self.start.task if self.start.task != PRETRAINING else "segmentation"
        self.start.read(task, name, "", "")
        self.settings.forget()
        self._onChanged()

    def onComputers(self, clicked: bool = False) -> None:
        """Open the list of computers."""
        TargetsDialog(self.facts.forgetComputers).show()
        self._onChanged()

    def onStart(self, clicked: bool = False) -> None:
        """Start the run, or cancel its hand-over."""
        if self._isStarting:
            self._isCancelled = True
            self._logic.cancelHandOver()
        else:
            self._start(queue=False)

    def onQueue(self, clicked: bool = False) -> None:
        """Start the run when those before it have ended."""
        self._start(queue=True)

    def whyNot(self) -> str:
        """Why the run cannot be started; "" where it can."""
        project = self._project()
        if project is None:
            return _("Create or open a project first.")
        try:
            datasetOf(project, self.start.task)
        except ValueError as error:
            return named(str(error), project.cases)
        if self.start.missing:
            return _("{name} is not among the models any more. Choose another start.").format(name=self.start.missing)
        if self.settings.problem:
            return self.settings.problem
        return self._whyNotTheseImages(project)

    def _whyNotTheseImages(self, project: Project) -> str:
        cases, fingerprint, point = self._cases(project), self.facts.fingerprint, self.start.point
        problems = fingerprint.of(cases).problems
        if problems and self.start.task != PRETRAINING:  # which leaves such images out, and says so
            case, problem = next(iter(problems.items()))
            return _("{case} cannot be read: {problem}").format(case=nameText(project.case(case)), problem=problem)
        is3d = point.spatialDims == 3 if point is not None else self.start.network[0] == "gl-mae"
        if fingerprint.of(cases).headers and fingerprint.of(cases).isOfPictures and is3d:
            return _("This network is for volumes (3-D), but the images are pictures. Choose one for slices.")
        if self.compute.value.startswith(TARGET_PREFIX) and not self.facts.isComplete:
            return _("Looking at the images, to tell how much would be sent…")
        return ""

    def _cases(self, project: Project) -> list[ProjectCase]:
        """The cases that the run reads."""
        return casesFor(project, self.start.task)

    def _sendingText(self, cases: list[ProjectCase]) -> str:
        target = find_target(self.request.target) if self.request.target else None
        if target is None or not target.is_remote:
            return ""
        return sendingText(target, len(cases), self.facts.fingerprint.size(cases) if self.facts.isComplete else None)

    def _inputSize(self) -> tuple[int, ...] | None:
        from medmae.models import load_info, resolve_model

        if self.start.point is None:
            return None
        try:
            return tuple(load_info(resolve_model(self.start.reference)).input_size)
        except BadInput:  # it was removed a moment ago; starting tells
            return None

    def _proposedName(self, project: Project) -> str:
        names = project.classes if self.start.task == "classification" else [label.name for label in project.labels]
        text = _("{project} encoder").format(project=project.name) if self.start.task == PRETRAINING else (
            " ".join(names[:3]) or project.name)
        shelf = ModelShelf()
        return shelf.freeName(shelf.usableName(text) or "model", {job.modelName for job in self._logic.jobs})

    def _onStartChanged(self) -> None:
        self.settings.forget()  # values for one network are none for another
        self._onChanged()

    def _onChanged(self) -> None:
        self._write()
        self.update()

    def _write(self) -> None:
        parameters = self._parameters
        if parameters is None:
            return
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.task, parameters.startFrom = self.start.task, self.start.chosen
            parameters.method, parameters.preset = self.start.chosenNetwork
            parameters.settings, parameters.computeOn = self.settings.json, self.compute.value
            parameters.modelName = self.ui.trainNameEdit.text.strip()

    def _updateButtons(self) -> None:
        problem, isBusy = self.whyNot(), self._isStarting
        whyNot = dialogs.asPlainHtml(problem) if problem else ""
        self.ui.trainProblemFrame.visible = bool(problem) and not isBusy
        self.ui.trainProblemLabel.text = problem
        isTarget = self.compute.value.startswith(TARGET_PREFIX)
        isReady = not problem and not isBusy
        self.trial.show(isReady)
        button = self.ui.trainStartButton
        button.text = _("Cancel") if isBusy else _("Pretrain") if self.start.task == PRETRAINING else _("Finetune")
        button.enabled = isBusy or (isReady and not self.trial.isBusy)
        button.toolTip = whyNot or _("Start now. The run goes on when Slicer is closed.")
        self.ui.trainQueueButton.visible = not isTarget  # there, the scheduler queues
        self.ui.trainQueueButton.enabled = isReady and not self.trial.isBusy
        self.ui.trainQueueButton.toolTip = whyNot or _("Start when the runs on this computer have ended.")
        for name in ("trainTaskSelector", "trainStartSelector", "trainImportButton", "trainMethodSelector",
                     "trainPresetSelector", "trainComputeSelector", "trainComputersButton", "trainNameEdit",
                     "trainSettingsTable"):
            getattr(self.ui, name).enabled = not isBusy and not self.trial.isBusy
        self.ui.trainProgressBar.visible = isBusy

    def _newTrial(self) -> Trial | None:
        request = self.request
        if not self._mayLeave(request):
            return None
        try:
            plan = self._planned(request)
            trial = Trial(plan, request.target, self._logic.engineCommand if request.target is None else None)
        except (OSError, ValueError, RuntimeError, BadInput) as error:
            self._tell(_("The run cannot be measured."), error)
            return None
        self._measured = self._nameless(request)
        return trial

    @staticmethod
    def _nameless(request: TrainRequest) -> TrainRequest:
        """What a trial depends on: the name of the model changes nothing."""
        return dataclasses.replace(request, name=None)

    def _planned(self, request: TrainRequest) -> RunPlan:
        return self._logic.planRun(request.kind, self._project(), **request.plan())

    def _mayLeave(self, request: TrainRequest) -> bool:
        """Ask before images of cases that were not agreed to yet go to another computer."""
        project = self._project()
        try:
            target = find_target(request.target) if request.target else None
        except BadInput as error:  # the list of computers is damaged
            self._tell(_("No computer can be chosen."), error)
            return False
        if target is None or project is None:
            return True
        agreed = self._consents.setdefault((target.name, str(project.path)), set())
        cases = self._cases(project)
        if {case.id for case in cases} <= agreed:
            return True
        if not dialogs.isConfirmed(consentText(target, len(cases), request, self.facts.fingerprint.size(cases))):
            return False
        agreed.update(case.id for case in cases)
        return True

    def _start(self, queue: bool) -> None:
        request, project = self.request, self._project()
        if not self._mayLeave(request):
            return
        self._setStarting(True)
        job = None
        try:
            begin = self._logic.pretrain if request.task == PRETRAINING else self._logic.finetune
            job = begin(project, name=request.name, target=request.target, queue=queue,
                        progressCallback=self._onProgress, **request.plan())
            self._say("")
        except RunCancelled:
            self._say(_("Cancelled."))
        except (OSError, ValueError, RuntimeError, BadInput) as error:
            self._say("")
            self._tell(_("The run could not be started."), error)
        finally:
            self._setStarting(False)
        if job is not None:
            self.ui.trainNameEdit.text = ""  # the next model is another one
            self._onChanged()
            self.started.emit(job)

    def _tell(self, failure: str, error: Exception) -> None:
        if not isinstance(error, (BadInput, ValueError)):
            _log.warning("%s", failure, exc_info=True)
        project = self._project()
        text = named(explained(error), project.cases if project is not None else ())
        dialogs.tellError(f"{failure}\n\n{text}")

    def _setStarting(self, isStarting: bool) -> None:
        self._isStarting, self._isCancelled = isStarting, False
        self.ui.trainProgressBar.setValue(0)
        self._updateButtons()

    def _onProgress(self, fraction: float, message: str) -> None:
        if not self._isStarting:
            return
        if self._isCancelled:
            raise RunCancelled(_("Cancelled."))
        self.ui.trainProgressBar.setValue(round(1000 * fraction))
        self._say(message)

    def _say(self, text: str) -> None:
        self.ui.trainStatusLabel.text, self.ui.trainStatusLabel.visible = text, bool(text)
