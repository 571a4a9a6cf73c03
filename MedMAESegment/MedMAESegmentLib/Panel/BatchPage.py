"""The tab "Batch": the loaded volumes or the images of a folder, segmented one after the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.FollowedJob import FollowedJob
from MedMAESegmentLib.Signal import Signal

UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "BatchPage.ui"


class BatchPage:
    """Shows the cases and how they stand, starts and cancels a batch, and opens its results.

    ``busyChanged()`` comes when a batch begins or ends.
    """

    def __init__(self, parentWidget: qt.QWidget, logic: Any, choices: Callable[[], Any]) -> None:
        """`logic` is a `MedMAESegmentLogic`; `choices` gives the model and options that are chosen at the moment."""
        self.busyChanged = Signal()
        self._logic, self._choices = logic, choices
        self._job: FollowedJob | None = None
        widget = slicer.util.loadUI(str(UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.ui.batchProgressBar.visible = False
        self.update()

    @property
    def isBusy(self) -> bool:
        """Whether a batch is under way."""
        return self._job is not None

    def update(self) -> None:
        """Show what is in the scene and what is chosen now."""
        self.ui.batchButton.toolTip = _("Choose a model.")

    def cancel(self) -> None:
        """End the batch; finished cases stay."""
        if self._job is not None:
            self._job.cancel()
