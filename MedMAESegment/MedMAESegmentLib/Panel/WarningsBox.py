"""The box that tells what speaks against a model for the chosen volumes, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

from medmae.errors import BadInput
from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.ImageWarnings import ImageWarning
from MedMAESegmentLib.Signal import Signal

_SERIOUS = ("channels", "modality", "memory")
_DELAY_MS = 200


class WarningsBox(VTKObservationMixin):
    """Looks again some moments after something has changed, so that no change is ever held up.

    ``changed()`` comes when what is watched has changed, ``examined()`` when it was looked at after that.

    Needs the widgets warningsFrame, warningsIcon and warningsLabel.
    """

    def __init__(self, ui: SimpleNamespace, examine: Callable[[], Sequence[ImageWarning]]) -> None:
        """`examine` gives the warnings; ValueError and BadInput are shown like them."""
        VTKObservationMixin.__init__(self)
        self.changed, self.examined = Signal(), Signal()
        self._ui, self._examine = ui, examine
        self._key: tuple = ()
        self._warnings: list[ImageWarning] = []
        self._texts: list[str] = []
        self._accepted: set[str] = set()
        icon = ui.warningsFrame.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        ui.warningsIcon.setPixmap(icon.pixmap(16, 16))
        self._timer = newTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_DELAY_MS)
        self._timer.timeout.connect(self._onTimer)
        self._show()

    def watch(self, nodes: Sequence[slicer.vtkMRMLNode], info: Any) -> None:
        """Look soon at these volumes and this region with this model, and whenever they change; without nodes at
        nothing."""
        key = (*nodes, info)
        if key == self._key:
            return
        self._key = key
        self.removeObservers()
        for node in dict.fromkeys(nodes):
            for event in (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent):
                self.addObserver(node, event, self._onModified)
        self._warnings, self._texts = [], []
        self._show()
        self.changed.emit()
        if nodes:
            self._timer.start()
        else:
            self._timer.stop()

    def refresh(self) -> None:
        """Look now."""
        self._timer.stop()
        try:
            self._warnings = list(self._examine())
            self._texts = [warning.text for warning in self._warnings]
        except (ValueError, BadInput) as error:
            self._warnings, self._texts = [], [inWordsOfThePanel(str(error))]
        self._show()

    def questions(self) -> list[str]:
        """The serious warnings that the user has not accepted yet."""
        if self._timer.isActive():
            self.refresh()
        return [warning.text for warning in self._warnings
                if warning.kind in _SERIOUS and warning.text not in self._accepted]

    def accept(self) -> None:
        """Do not ask about these warnings again; they stay in view."""
        self._accepted |= {warning.text for warning in self._warnings}

    def forget(self) -> None:
        """Ask about everything again: the scene holds other images."""
        self._accepted.clear()

    def _onModified(self, caller: object = None, event: object = None) -> None:
        self._timer.start()

    def _onTimer(self) -> None:
        self.refresh()
        self.examined.emit()

    def _show(self) -> None:
        self._ui.warningsLabel.text = "\n\n".join(self._texts)
        self._ui.warningsFrame.visible = bool(self._texts)
