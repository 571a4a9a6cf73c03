"""What the page of cases is doing at the moment: how far it is, how to end it, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar

import qt
import slicer
from MedMAESegmentLib.Application import processEvents
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.FollowedJob import ProgressCallback, RunCancelled
from MedMAESegmentLib.Signal import Signal
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.Panel.CaseTexts import named
from MedMAETrainLib.Panel.MessageBox import MessageBox
from MedMAETrainLib.Panel.Texts import breakable
from MedMAETrainLib.Project import Project

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class CaseWork:
    """Does one thing after the other; ``busyChanged()`` comes when one begins or ends.

    Needs the widgets casesProgressFrame, casesProgressBar, casesProgressLabel and casesCancelButton.
    """

    def __init__(self, ui: SimpleNamespace, messages: MessageBox, project: Callable[[], Project | None]) -> None:
        self.busyChanged = Signal()
        self.messages = messages
        self.isBusy = False
        self._ui, self._project = ui, project
        self._doer: Project | None = None
        self._isCancelled = False
        ui.casesCancelButton.clicked.connect(self.cancel)
        ui.casesProgressFrame.visible = False

    def run(self, message: str, failure: str, do: Callable[[Project, ProgressCallback], Result]) -> Result | None:
        """Do something with the project, and give what comes of it; why it cannot be done is told, and gives None.

        :param message: what is done, for the user.
        :param failure: that it was not done, for the user.
        :param do: gets the project, and what it calls with how far it is.
        """
        project = self._project()
        if project is None:
            return None
        if self.isBusy:
            self.messages.tell(_("{failure} Something else is being done; wait until it is done, or cancel it.").format(
                failure=failure), isProblem=True)
            return None
        self._doer, self._isCancelled = project, False
        self.messages.tell("")
        self._begin(message)
        try:
            if self._isCancelled:  # before it has begun
                raise RunCancelled
            return do(project, lambda fraction, name: self._show(fraction, f"{message} {name}"))
        except RunCancelled:
            self.messages.tell(_("Cancelled. What was done before is kept."))
        except (BadInput, ValueError, OSError, RuntimeError) as error:
            if not isinstance(error, (BadInput, ValueError)):  # which say all that there is to know
                _log.warning("%s", failure, exc_info=True)
            self.messages.tell(f"{failure} {named(explained(error), project.cases)}", isProblem=True)
        finally:
            self._doer = None
            self._end()
        return None

    def cancel(self, clicked: bool = False) -> None:
        """End what is done; what it has finished stays."""
        if self._doer is not None:
            self._isCancelled = True
            self._ui.casesProgressLabel.text = _("Cancelling...")
            self._doer.cancel()

    def _begin(self, message: str) -> None:
        self.isBusy = True
        self._ui.casesProgressBar.setRange(0, 0)  # nobody knows how far it is
        self._ui.casesProgressLabel.text = breakable(message)
        self._ui.casesProgressFrame.visible = True
        self.busyChanged.emit()
        slicer.app.setOverrideCursor(qt.Qt.BusyCursor)
        processEvents()

    def _show(self, fraction: float, message: str) -> None:
        self._ui.casesProgressBar.setRange(0, 1000)
        self._ui.casesProgressBar.setValue(round(1000 * fraction))
        self._ui.casesProgressLabel.text = breakable(message)

    def _end(self) -> None:
        slicer.app.restoreOverrideCursor()
        self.isBusy = False
        self._ui.casesProgressFrame.visible = False
        self.busyChanged.emit()

