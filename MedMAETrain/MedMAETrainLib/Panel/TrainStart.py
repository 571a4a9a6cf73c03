"""The part of the page "Train" that says what a run learns and what it starts from."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from MedMAESegmentLib.CheckpointImport import ENDINGS
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.ModelShelf import ModelShelf
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Panel.WeightsImport import askHowToImport, fileFilter, isCheckpoint, loadReport, modelIn
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.Panel import TrainTexts as texts
from MedMAETrainLib.Project import Project
from MedMAETrainLib.Recommendation import Network
from MedMAETrainLib.RunPlan import FROM_SCRATCH
from MedMAETrainLib.TrainRequest import PRETRAINING

_log = logging.getLogger(__name__)


class TrainStart:
    """The task, the starting point, and from scratch the network; ``changed()`` comes when the user changes one.

    Needs the widgets trainTaskSelector, trainStartLabel, trainStartSelector, trainStartHelpLabel, trainImportButton,
    trainNetworkLabel, trainMethodSelector, trainPresetSelector and trainNetworkHelpLabel.

    Attributes:
        busy: called with what is done while weights are imported, and with "" afterwards.
    """

    def __init__(self, ui: SimpleNamespace, logic: Any) -> None:
        """`logic` gives the starting points."""
        self.changed, self.busy = Signal(), Signal()
        self._ui, self._logic = ui, logic
        self._points: list[Any] = []  # beside "from scratch", which is the last entry
        self._chosen = ""  # reference of the starting point; "": what suits the images
        self._network: Network | None = None  # what is recommended
        self._modality = ""  # of the images
        self._method, self._preset = "", ""  # "": as recommended
        for task in texts.TASKS:
            ui.trainTaskSelector.addItem(texts.taskName(task))
        ui.trainTaskSelector.currentIndexChanged.connect(self._onTask)
        ui.trainStartSelector.currentIndexChanged.connect(self._onStart)
        ui.trainMethodSelector.currentIndexChanged.connect(self._onMethod)
        ui.trainPresetSelector.currentIndexChanged.connect(self._onPreset)
        ui.trainImportButton.clicked.connect(self.onImport)

    @property
    def task(self) -> str:
        """What is learned."""
        return texts.TASKS[max(self._ui.trainTaskSelector.currentIndex, 0)]

    @property
    def chosen(self) -> str:
        """What the user wants to start from, as the scene keeps it; "": not chosen yet."""
        return self._chosen

    @property
    def point(self) -> Any:
        """The `StartingPoint`; None: from scratch."""
        index = self._ui.trainStartSelector.currentIndex
        return self._points[index] if 0 <= index < len(self._points) else None

    @property
    def missing(self) -> str:
        """What was chosen and is not there any more; "": nothing."""
        known = {point.reference for point in self._points} | {"", FROM_SCRATCH}
        return "" if self._chosen in known or self.task == PRETRAINING else self._chosen

    @property
    def reference(self) -> str:
        """What the logic takes as ``encoder``."""
        return FROM_SCRATCH if self.point is None else self.point.reference

    @property
    def chosenNetwork(self) -> tuple[str, str]:
        """Method and preset that the user has chosen; "" for what is recommended."""
        return self._method, self._preset

    @property
    def network(self) -> tuple[str, str]:
        """Method and preset of the run."""
        if self.point is not None:
            return self.point.method, self.point.preset
        assert self._network is not None
        method = self._method or self._network.method
        recommended = self._network.preset if method == self._network.method else "tiny"
        return method, self._preset or recommended

    def read(self, task: str, startFrom: str, method: str, preset: str) -> None:
        """Take the choices of the scene."""
        self._block(True)
        self._ui.trainTaskSelector.setCurrentIndex(texts.TASKS.index(task) if task in texts.TASKS else 0)
        self._block(False)
        self._chosen = startFrom
        known = method in texts.PRESETS
        self._method = method if known else ""
        self._preset = preset if known and preset in texts.presetNames(method) else ""

    def choose(self, reference: str) -> None:
        """Start from something; shown by `update`."""
        self._chosen = reference

    def update(self, project: Project, recommended: Network, modality: str) -> None:
        """List what there is to start from now, and the networks; `recommended` is shown where none was chosen, and of
        the encoders the first that knows images of this `modality`."""
        self._network, self._modality = recommended, modality
        self._points = list(self._logic.startingPoints(self.task, project))
        references = [*(point.reference for point in self._points), FROM_SCRATCH]
        # What else there is to say stands below: there is no room for it here.
        labels = [point.label if point.kind == "run" else point.reference for point in self._points]
        labels.append(_("Nothing (from scratch)"))
        if self.missing:
            labels.append(_("{name} (not there any more)").format(name=self._chosen))
            references.append(self._chosen)
        self._block(True)
        chosen = self._chosen or self._usual()
        if chosen not in references:  # pretraining knows no start but one; what was chosen waits for the next task
            chosen = FROM_SCRATCH
        _fill(self._ui.trainStartSelector, labels, references.index(chosen))
        method, preset = self.network
        methods = list(texts.PRESETS)
        _fill(self._ui.trainMethodSelector, [texts.methodName(one) for one in methods], methods.index(method))
        presets = texts.presetNames(method)
        _fill(self._ui.trainPresetSelector, presets, presets.index(preset) if preset in presets else 0)
        self._block(False)
        self._show(method, preset)

    def onImport(self, clicked: bool = False) -> None:
        """Install weights or a model from a file, and start from it."""
        path = dialogs.fileToRead(_("Weights of VIS-MAE, GL-MAE or MONAI, or a model that someone exported"),
                                  fileFilter(*ENDINGS))
        if not path:
            return
        shelf, imported, report = ModelShelf(), "", ""
        answers = askHowToImport(Path(path), shelf) if isCheckpoint(path) else None
        if isCheckpoint(path) and answers is None:
            return
        self.busy.emit(_("Importing {name}…").format(name=Path(path).name))
        try:
            if answers is not None:
                report, imported = loadReport(shelf.importCheckpoint(path, *answers)), answers[1]
            else:
                found = modelIn(path)
                name = shelf.freeName(shelf.usableName(shelf.inspectModel(found).name))
                imported = shelf.importModel(found, name)
        except (OSError, ValueError, RuntimeError, BadInput) as error:
            if not isinstance(error, BadInput):
                _log.warning("The weights were not imported", exc_info=True)
            dialogs.tellError(_("The weights were not imported.") + f"\n\n{explained(error)}")
        finally:
            self.busy.emit("")
        if report:
            dialogs.tell(report)
        if imported:
            self._chosen = imported
            self.changed.emit()

    def _usual(self) -> str:
        """What to start from where nothing was chosen."""
        assert self._network is not None
        dims = 3 if self._network.method == "gl-mae" else 2
        return next((point.reference for point in self._points
                     if point.kind == "encoder" and point.spatialDims == dims
                     and (point.modality == self._modality or not point.modality)), FROM_SCRATCH)

    def _show(self, method: str, preset: str) -> None:
        ui, isPretraining = self._ui, self.task == PRETRAINING
        for widget in (ui.trainStartLabel, ui.trainStartSelector, ui.trainImportButton, ui.trainStartHelpLabel):
            widget.visible = not isPretraining
        ui.trainStartHelpLabel.text = texts.startHelp(self.point, self._modality)
        isScratch = self.point is None and not self.missing
        for widget in (ui.trainNetworkLabel, ui.trainMethodSelector, ui.trainPresetSelector, ui.trainNetworkHelpLabel):
            widget.visible = isScratch
        assert self._network is not None
        lines = [texts.methodHelp(method), texts.presetHelp(preset)]
        if (method, preset) == (self._network.method, self._network.preset):
            lines.append(_("Recommended here ({reason}).").format(reason=self._network.reason))
        else:
            lines.append(_("Recommended here: {method}, {preset} ({reason}).").format(
                method=texts.methodName(self._network.method), preset=self._network.preset,
                reason=self._network.reason))
        ui.trainNetworkHelpLabel.text = " ".join(line for line in lines if line)

    def _onTask(self, _index: Any) -> None:  # Qt 5 may tell the text instead, here and below
        self._method = self._preset = ""
        self.changed.emit()

    def _onStart(self, _index: Any) -> None:
        index = self._ui.trainStartSelector.currentIndex
        references = [*(point.reference for point in self._points), FROM_SCRATCH]
        if 0 <= index < len(references):
            self._chosen = references[index]
            self.changed.emit()

    def _onMethod(self, _index: Any) -> None:
        self._method, self._preset = list(texts.PRESETS)[self._ui.trainMethodSelector.currentIndex], ""
        self.changed.emit()

    def _onPreset(self, _index: Any) -> None:
        self._method = self.network[0]
        self._preset = texts.presetNames(self._method)[self._ui.trainPresetSelector.currentIndex]
        self.changed.emit()

    def _block(self, isBlocked: bool) -> None:
        for selector in (self._ui.trainTaskSelector, self._ui.trainStartSelector, self._ui.trainMethodSelector,
                         self._ui.trainPresetSelector):
            selector.blockSignals(isBlocked)


def _fill(selector: Any, labels: list[str], index: int) -> None:
    if labels != [selector.itemText(row) for row in range(selector.count)]:  # it may be open at this moment
        selector.clear()
        selector.addItems(labels)
    selector.setCurrentIndex(index)
