"""The tab "Next case": which case to annotate next, and whether more are likely to help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.Panel.Choices import TARGET_PREFIX
from MedMAESegmentLib.Panel.ComputeSelector import ComputeSelector
from MedMAESegmentLib.Panel.Dialogs import asPlainHtml, isConfirmed, tellError
from MedMAESegmentLib.Panel.RemoteConsent import RemoteConsent
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.LoopLogic import STRATEGIES
from MedMAETrainLib.Panel.CaseTexts import named
from MedMAETrainLib.Panel.NextCurve import NextCurve
from MedMAETrainLib.Panel.NextOpenCase import OpenCase, openCaseOf
from MedMAETrainLib.Panel.NextTable import MOST_ROWS, NextTable
from MedMAETrainLib.Panel.NextTexts import (
    caseName,
    endText,
    hintText,
    rankingText,
    shortened,
    staleText,
    strategyName,
    strategyText,
)
from MedMAETrainLib.PredictionJob import PredictionJob
from MedMAETrainLib.Project import Project
from MedMAETrainLib.Ranking import Ranking, candidates

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "NextPage.ui"
UPDATE_AFTER_MS = 150


class NextPage:
    """``openCase(caseId, model)`` and ``finetuneFrom(modelName)`` come when the user asks for these."""

    def __init__(self, parentWidget: qt.QWidget, logic: Any, project: Callable[[], Project | None]) -> None:
        """`parentWidget` has a layout, at whose end this goes; `project` gives the one that is open."""
        self.openCase, self.finetuneFrom = Signal(), Signal()
        self._logic, self._project, self._parameters = logic, project, None
        self._consent = RemoteConsent()
        self._job: Any = None
        self._isSaving = False
        self._shownProject: Project | None = None
        self._ranking: Ranking | None = None
        self._problem = ""  # with the order that the project remembers
        self._open: OpenCase | None = None
        self._models: list[str] = []
        self._newest: str | None = None  # of the project's own
        self._widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(self._widget)
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self.compute = ComputeSelector(self.ui.nextComputeComboBox)
        self.table, self.curve = NextTable(self.ui.nextTable), NextCurve(self.ui, logic.learningCurve)
        self.ui.nextStrategyComboBox.addItems([strategyName(strategy) for strategy in STRATEGIES])
        self._timer = newTimer()
        self._timer.setInterval(UPDATE_AFTER_MS)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._refresh)
        self._connect()
        self._say("")
        self._refresh()

    @property
    def isBusy(self) -> bool:
        """Whether cases of the project are being predicted and ranked."""
        return self._job is not None

    def setParameters(self, parameters: Any) -> None:
        """Show the choices of a parameter node; None: another module is open, or the scene is being closed."""
        self._parameters = parameters
        if parameters is not None:
            strategy = parameters.strategy if parameters.strategy in STRATEGIES else STRATEGIES[0]
            self.ui.nextStrategyComboBox.setCurrentIndex(STRATEGIES.index(strategy))
            self._showCompute()
        self.update()

    def update(self) -> None:
        """Show soon what is there now: a project may change many times a second."""
        if not self._timer.isActive():
            self._timer.start()

    def cleanup(self) -> None:
        """The module is closed. What another computer does goes on, and is found again; a child of this Slicer ends."""
        self._timer.stop()
        self.curve.stop()
        if isinstance(self._job, PredictionJob):
            self._job.cancel()
        elif self._job is not None:
            self._job.stopFollowing()

    def onButton(self, clicked: bool = False) -> None:
        """Predict and rank, or cancel that."""
        project = self._project()
        if self._job is not None:
            self._job.cancel()
            return
        if project is None or not self._models:
            return
        target = self._target()
        question = self._consent.question(target)
        if question is not None and not isConfirmed(question):
            return
        self._consent.give(target)
        self._say("")
        device = "auto" if target else self.compute.value
        try:
            job = self._logic.predictAndRank(project, self._model(), self._strategy(), device=device, target=target)
        except (ValueError, BadInput, OSError, RuntimeError) as error:
            self._say(named(explained(error), project.cases))
            return
        self._follow(job)
        self._refresh()

    def onOpenNext(self, clicked: bool = False) -> None:
        """Open the case that is the most useful to annotate."""
        project = self._project()
        try:
            case = None if project is None else self._logic.nextCase(project)
        except BadInput as error:  # the order that the project remembers is damaged
            tellError(str(error))
            return
        if case is not None:
            self._askToOpen(case.id)

    def onOpenSelected(self, clicked: bool = False) -> None:
        """Open the selected case."""
        if self.table.selection is not None:
            self._askToOpen(self.table.selection)

    def onCorrected(self, clicked: bool = False) -> None:
        """Save what is drawn on the open case; from now on it is trained on."""
        project, opened = self._project(), self._open
        if project is None or opened is None or self._isSaving:
            return
        now = openCaseOf(project)
        if now is None or now.case.id != opened.case.id:  # another one than the button names was opened meanwhile
            self._refresh()
            return
        self._isSaving = True  # the application lives on meanwhile
        self.ui.nextCorrectedButton.enabled = False
        try:
            saved = self._logic.markCorrected(project, opened.case, opened.segmentationNode, opened.volumeNode)
        except (ValueError, BadInput, OSError, RuntimeError) as error:
            failure = _("{case} is not marked as corrected.").format(case=caseName(opened.case))
            tellError(f"{failure}\n\n{named(explained(error), project.cases)}")
        else:
            self._say(_("{case} is saved; training learns from it from now on.").format(case=caseName(saved)))
        finally:
            self._isSaving = False
        self._refresh()

    def onFinetune(self, clicked: bool = False) -> None:
        """Train again, from the newest model on."""
        if self._newest is not None:
            self.finetuneFrom.emit(self._newest)

    def _connect(self) -> None:
        ui = self.ui
        ui.nextButton.clicked.connect(self.onButton)
        self._singleClicks = SingleClicks(ui.nextButton)
        ui.nextOpenButton.clicked.connect(self.onOpenNext)
        ui.nextOpenSelectedButton.clicked.connect(self.onOpenSelected)
        ui.nextCorrectedButton.clicked.connect(self.onCorrected)
        ui.nextFinetuneButton.clicked.connect(self.onFinetune)
        ui.nextStrategyComboBox.currentIndexChanged.connect(self._onStrategy)
        self.compute.changed.connect(self._onCompute)
        self.table.selected.connect(self._updateButtons)
        self.table.opened.connect(self._askToOpen)

    def _askToOpen(self, caseId: str) -> None:
        self.openCase.emit(caseId, self._model())
        self.update()  # what is open now

    def _strategy(self) -> str:
        return STRATEGIES[self.ui.nextStrategyComboBox.currentIndex]

    def _onStrategy(self, _index: Any) -> None:  # Qt 5 may tell the text instead
        self.ui.nextStrategyTextLabel.text = strategyText(self._strategy())
        if self._parameters is not None:
            self._parameters.strategy = self._strategy()

    def _onCompute(self) -> None:
        if self._parameters is not None:
            self._parameters.computeOn = self.compute.value

    def _showCompute(self) -> None:
        """List the computers that there are now; another page may have chosen one of them."""
        self.compute.update()
        if self._parameters is not None:
            self.compute.value = self._parameters.computeOn

    def _target(self) -> str | None:
        value = self.compute.value
        return value.removeprefix(TARGET_PREFIX) if value.startswith(TARGET_PREFIX) else None

    def _model(self) -> str | None:
        """The model that is chosen; None: there is none."""
        index = self.ui.nextModelComboBox.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    def _say(self, text: str) -> None:
        self.ui.nextStatusLabel.text = text
        self.ui.nextStatusLabel.visible = bool(text)

    def _follow(self, job: Any) -> None:
        self._job = job
        job.progressed.connect(lambda _fraction, _message: self._showProgress(job))
        job.finished.connect(self._onFinished)
        self._showProgress(job)

    def _showProgress(self, job: Any) -> None:
        if job is self._job:  # not that of a project that was open before
            self.ui.nextProgressBar.value = round(1000 * job.fraction)
            self._say(job.message or _("Starting"))

    def _onFinished(self, job: Any) -> None:
        if job is self._job:
            self._job = None
            self._say(named(endText(job, job.work.result, len(job.work.cases)), job.work.project.cases))
            self._refresh()

    def _refresh(self) -> None:
        """Show what is there now."""
        self._timer.stop()
        project = self._project()
        if project is not self._shownProject:
            self._changeProject(project)
        self.ui.nextPageContent.visible = project is not None
        if project is None:
            self._hint(hintText(False, False, False, False, 0))
            return
        if not self.isBusy:
            self._showCompute()
        self._newest = self._logic.newestModel(project)
        self._listModels(project)
        self._readRanking(project)
        self._open = openCaseOf(project)
        left = len(candidates(project))
        self._hint(hintText(True, bool(project.cases), bool(self._models),
                            self._newest is not None, left))
        self._showRanking(left)
        self._updateButtons()
        self._showCurve(project)

    def _changeProject(self, project: Project | None) -> None:
        """Another project: what is under way in the one before is not shown any more, and goes on."""
        self._shownProject, self._job = project, None
        self._say("")
        self._consent.forget()
        job = None if project is None else self._logic.loopJob(project)
        if job is not None:
            self._follow(job)

    def _hint(self, text: str) -> None:
        self.ui.nextHintLabel.text = text
        self.ui.nextHintLabel.visible = bool(text)

    def _listModels(self, project: Project) -> None:
        models = self._logic.loopModels(project)
        if models == self._models:
            return
        box, chosen = self.ui.nextModelComboBox, self._model()
        wasNewest = box.currentIndex <= 0  # a newer model takes the place of the newest one
        self._models = models
        wasBlocked = box.blockSignals(True)
        box.clear()
        box.addItems([_("{model} (newest)").format(model=name) if name == self._newest else name
                      for name in models])
        box.setCurrentIndex(models.index(chosen) if chosen in models and not wasNewest else 0)
        box.blockSignals(wasBlocked)

    def _readRanking(self, project: Project) -> None:
        self._ranking, self._problem = None, ""
        try:
            self._ranking = self._logic.ranking(project)
        except BadInput as error:
            self._problem = str(error)

    def _showRanking(self, left: int) -> None:
        ui, ranking = self.ui, self._ranking
        stale = self._problem or ("" if ranking is None or not left else staleText(ranking))
        ui.nextStaleLabel.text = "" if self.isBusy else stale
        ui.nextStaleLabel.visible = bool(ui.nextStaleLabel.text)
        cases = () if ranking is None else ranking.cases
        self.table.show(cases)
        ui.nextTable.visible = bool(cases)
        more = [] if ranking is None or not cases else [rankingText(ranking)]
        if len(cases) > MOST_ROWS:
            more.append(_("{count} more cases follow.").format(count=len(cases) - MOST_ROWS))
        ui.nextMoreLabel.text = " ".join(more)
        ui.nextMoreLabel.visible = bool(more)

    def _showCurve(self, project: Project) -> None:
        self.ui.nextCurveCollapsibleButton.visible = any(run.model is not None for run in project.runs)
        self.curve.update(project)

    def _updateButtons(self) -> None:
        ui, project = self.ui, self._project()
        if project is None:
            return
        left = bool(candidates(project))
        for widget in (ui.nextModelComboBox, ui.nextStrategyComboBox, ui.nextComputeComboBox):
            widget.enabled = not self.isBusy
        ui.nextStrategyTextLabel.text = strategyText(self._strategy())
        ui.nextProgressBar.visible = self.isBusy
        button = ui.nextButton
        button.text = _("Cancel") if self.isBusy else _("Predict and rank")
        button.enabled = self.isBusy or (left and bool(self._models))
        button.toolTip = _("End it; what is done is kept.") if self.isBusy else _(
            "Let the model draw on the cases that nobody has annotated, and find those that are the most useful to "
            "annotate. What a person has drawn stays.")
        ui.nextOpenButton.enabled = left
        ui.nextOpenButton.toolTip = _("Open the case that is the most useful to annotate in the Segment Editor, with "
                                      "what the model has drawn on it.")
        ui.nextOpenSelectedButton.enabled = self.table.selection is not None
        ui.nextOpenSelectedButton.toolTip = _("Open the case that is selected in the table.")
        self._updateCorrected()
        self._updateFinetune(project)

    def _updateCorrected(self) -> None:
        button, opened = self.ui.nextCorrectedButton, self._open
        button.enabled = opened is not None and not self._isSaving
        if opened is None:
            button.text = _("Mark as corrected")
            button.toolTip = _("Open a case and correct it in the Segment Editor first.")
        else:
            name = shortened(caseName(opened.case), 24).replace("&", "&&")  # a single one marks a key
            button.text = _("Mark {case} as corrected").format(case=name)
            button.toolTip = _("Save what is drawn on it in the Segment Editor; training learns from it from now on.")

    def _updateFinetune(self, project: Project) -> None:
        button, newest = self.ui.nextFinetuneButton, self._newest
        problem = _("Train a first model in the tab Train.") if newest is None else self._logic.whyNotFinetune(newest)
        button.enabled = not problem
        if newest is None or problem:
            button.text, button.toolTip = _("Finetune again"), asPlainHtml(problem)
            return
        button.text = _("Finetune again from {model}").format(model=shortened(newest).replace("&", "&&"))
        learned = {case for run in project.runs if run.model == newest for case in run.cases}
        count = sum(case.isAnnotated and case.id not in learned for case in project.cases)
        button.toolTip = _("Train on all annotated cases, beginning with what this model knows. Annotated since: "
                           "{count}.").format(count=count)
