"""What can be done with the selected runs, and why something cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from MedMAESegmentLib.Panel.Dialogs import isConfirmed, tellError
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from medmae.jobs.problems import TargetProblem
from MedMAETrainLib.Panel.RunLog import RunLog
from MedMAETrainLib.RunEntry import RunEntry

STOPPABLE = ("submitting", "queued", "running", "unreachable")
_PROBLEMS = (BadInput, TargetProblem, OSError, ValueError, RuntimeError)


class RunActions:
    """The buttons below the table, but for those that show curves.

    ``done()`` comes when runs may stand otherwise than before.
    """

    def __init__(self, ui: Any, logic: Any, selection: Callable[[], Sequence[RunEntry]]) -> None:
        """`logic` is a `TrainLogic`; `selection` gives the runs that are selected."""
        self.done = Signal()
        self.logs: list[RunLog] = []
        self._logic, self._selection = logic, selection
        self._isAtWork = False
        self._toRemove: set[str] = set()  # as soon as they have ended
        self.ui = ui
        ui.runStopButton.clicked.connect(self.onStop)
        ui.runResumeButton.clicked.connect(self.onResume)
        ui.runRemoveButton.clicked.connect(self.onRemove)
        ui.runLogButton.clicked.connect(self.onLog)
        ui.runReportButton.clicked.connect(self.onReport)
        ui.runFolderButton.clicked.connect(self.onFolder)

    def update(self) -> None:
        """Enable what can be done with the selected runs."""
        entries = self._selection()
        one = entries[0] if len(entries) == 1 else None
        states = [entry.status.state for entry in entries]
        isWaiting = one is not None and one.status.state == "waiting"
        hasReport = one is not None and (one.folder / "report.html").is_file()
        self._offer(self.ui.runStopButton, any(state in STOPPABLE for state in states),
                    _("Stop after this step; what was learned so far is kept, and can be resumed."),
                    _("It is stopping already.") if "stopping" in states else _("Nothing of what is selected runs."))
        self.ui.runResumeButton.text = _("Start now") if isWaiting else _("Resume")
        self._offer(self.ui.runResumeButton, one is not None and (one.canResume or isWaiting),
                    _("Do not wait for the runs before it.") if isWaiting else
                    _("Go on where it has ended, with the same settings."),
                    _("Only a run that was stopped, interrupted or has failed can go on."))
        self._offer(self.ui.runRemoveButton, bool(entries),
                    _("Delete the run with its pictures, log and report; its model in the list stays."),
                    _("Select a run."))
        self._offer(self.ui.runLogButton, one is not None, _("What the run writes while it computes."),
                    _("Select one run."))
        self._offer(self.ui.runReportButton, hasReport, _("Open the report, with curves, scores and pictures, in the "
                    "web browser."), _("There is no report before a run is done."))
        self._offer(self.ui.runFolderButton, one is not None, _("Open the folder of the run in the file manager."),
                    _("Select one run."))

    def removeEnded(self, entries: Sequence[RunEntry]) -> None:
        """Remove runs that were to end first, and have."""
        for entry in entries:
            if entry.id in self._toRemove and entry.status.isFinal and not self._isAtWork:
                self._toRemove.discard(entry.id)
                self._try(_("The run {name} could not be removed."), entry, self._logic.removeRun)

    def onStop(self, clicked: bool = False) -> None:
        """Stop what is selected and runs."""
        for entry in self._selection():
            if entry.status.state in STOPPABLE:
                self._try(_("The run {name} could not be stopped."), entry, self._logic.stopRun)

    def onResume(self, clicked: bool = False) -> None:
        """Go on with the selected run."""
        (entry,) = self._selection()
        isWaiting = entry.status.state == "waiting"
        self._try(_("The run {name} could not be started."), entry,
                  self._logic.startRunNow if isWaiting else self._logic.resumeRun)

    def onRemove(self, clicked: bool = False) -> None:
        """Remove what is selected; runs under way are ended first."""
        entries = list(self._selection())
        if not isConfirmed(removalQuestion(entries)):
            return
        for entry in entries:
            if entry.status.isFinal or entry.status.state == "waiting":
                self._try(_("The run {name} could not be removed."), entry, self._logic.removeRun)
            elif entry.status.state == "unreachable":
                tellError(_("{target} does not answer, so that the run {name} there can neither be ended nor removed. "
                            "Try again when it answers.").format(target=entry.target, name=entry.name))
            elif self._try(_("The run {name} could not be ended."), entry, self._logic.cancelRun):
                self._toRemove.add(entry.id)

    def onLog(self, clicked: bool = False) -> None:
        """Show the log of the selected run."""
        (entry,) = self._selection()

        def read() -> str:
            try:
                return self._logic.logText(entry.id)
            except (BadInput, OSError) as error:  # removed while the dialog is open
                return str(error)

        self.logs = [log for log in self.logs if log.dialog.isVisible()] + [RunLog(entry.name, read)]
        self.logs[-1].show()

    def onReport(self, clicked: bool = False) -> None:
        """Open the report of the selected run."""
        (entry,) = self._selection()
        question = _("This report was written on {target}, another computer, and opens in your web browser. Open it "
                     "only if you trust that computer.").format(target=entry.target)
        if entry.target and not isConfirmed(question):
            return
        self._try(_("The report of {name} could not be opened."), entry, self._openReport)

    def onFolder(self, clicked: bool = False) -> None:
        """Open the folder of the selected run."""
        (entry,) = self._selection()
        self._open(entry.folder)

    def cleanup(self) -> None:
        """Close the logs."""
        for log in self.logs:
            log.onClose()

    def _openReport(self, runId: str) -> None:
        file = self._logic.reportFile(runId)
        if file is None:
            raise BadInput(_("It is not there any more."))
        self._open(file)

    @staticmethod
    def _open(path: Path) -> None:
        if not path.exists() or not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path))):
            tellError(_("This cannot be shown here: {path}").format(path=path))

    def _try(self, failure: str, entry: RunEntry, work: Callable[[str], Any]) -> bool:
        """Do something with a run, and tell why it could not be done; whether it was.

        One thing at a time: the application lives on meanwhile.
        """
        if self._isAtWork:
            return False
        self._isAtWork, problem = True, ""
        try:
            work(entry.id)
        except _PROBLEMS as error:
            problem = str(error)
        finally:
            self._isAtWork = False
        if problem:
            tellError(failure.format(name=entry.name) + "\n\n" + problem)
        self.done.emit()
        return not problem

    def _offer(self, button: qt.QPushButton, isPossible: bool, what: str, whyNot: str) -> None:
        button.enabled, button.toolTip = isPossible, what if isPossible else whyNot


def removalQuestion(entries: Sequence[RunEntry]) -> str:
    """What is asked before runs are removed."""
    names = ", ".join(entry.name for entry in entries[:5]) + (", ..." if len(entries) > 5 else "")
    lines = [_("Remove the run {names}?").format(names=names) if len(entries) == 1 else
             _("Remove {count} runs ({names})?").format(count=len(entries), names=names),
             _("Pictures, log, report and everything to resume from are deleted. Models in the list stay.")]
    if any(not entry.status.isFinal and entry.status.state != "waiting" for entry in entries):
        lines.append(_("What is under way is ended first; what it has learned is lost."))
    return "\n\n".join(lines)
