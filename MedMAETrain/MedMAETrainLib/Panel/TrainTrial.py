"""The line of the page "Train" that measures what a run takes before it is started."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.TrainTexts import isTooLarge, trialText
from MedMAETrainLib.Trial import Trial


class TrainTrial:
    """Measures, or cancels that; ``changed()`` comes when it begins or ends.

    Needs the widgets trainMeasureButton and trainMeasureLabel.
    """

    def __init__(self, ui: SimpleNamespace, begin: Callable[[], Trial | None]) -> None:
        """`begin` makes a trial of what is chosen; None where the user has changed their mind."""
        self.changed = Signal()
        self._ui, self._begin = ui, begin
        self._trial: Trial | None = None
        self._isPossible = False
        ui.trainMeasureButton.clicked.connect(self.onButton)
        self._singleClicks = SingleClicks(ui.trainMeasureButton)
        self._say("")

    @property
    def isBusy(self) -> bool:
        """Whether a trial is under way."""
        return self._trial is not None

    def show(self, isPossible: bool) -> None:
        """Whether what is chosen can be measured now."""
        self._isPossible = isPossible
        self._ui.trainMeasureButton.enabled = isPossible or self.isBusy
        self._ui.trainMeasureButton.text = _("Cancel") if self.isBusy else _("Measure")
        self._ui.trainMeasureButton.toolTip = _("End the trial.") if self.isBusy else _(
            "Compute a few real steps of this run, to tell how long it will take and how much memory it needs.")

    def forget(self) -> None:
        """What was measured does not hold any more; a trial under way is ended."""
        self.cancel()
        self._say("")

    def cancel(self) -> None:
        """End the trial."""
        if self._trial is not None:
            self._trial.cancel()

    def onButton(self, clicked: bool = False) -> None:
        """Measure, or cancel."""
        if self.isBusy:
            self.cancel()
            return
        trial = self._begin()
        if trial is None:
            return
        self._trial = trial
        self._say(_("Preparing a few steps…"))
        trial.progressed.connect(self._onProgress)
        trial.finished.connect(self._onFinished)
        trial.startFollowing()
        self.show(self._isPossible)
        self.changed.emit()

    def _onProgress(self, fraction: float, message: str) -> None:
        self._say(_("Measuring: {message}").format(message=message))

    def _onFinished(self, trial: FollowedJob) -> None:
        self._trial = None
        if isinstance(trial.error, RunCancelled):
            self._say("")
        elif trial.error is not None:
            self._say(_("It could not be measured. {reason}").format(reason=trial.error))
        else:
            text = trialText(trial.result)
            self._say(text + " " + _("That is too much: compute fewer images at once, choose a smaller network, or "
                                     "another computer.") if isTooLarge(trial.result) else text)
        self.show(self._isPossible)
        self.changed.emit()

    def _say(self, text: str) -> None:
        self._ui.trainMeasureLabel.text = text or _("Time and memory are not measured yet.")
