"""One choice of a volume for each channel of the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Signal import Signal

_COLOURS = {"red", "green", "blue"}


class ChannelSelectors:
    """The selectors of the volumes; the first, which is in the .ui file, gives the grid of the result.

    Needs the widgets volumeForm (with a QFormLayout, whose first row it is), inputVolumeLabel and inputVolumeSelector.
    """

    def __init__(self, ui: SimpleNamespace) -> None:
        self.changed = Signal()
        self.names: list[str] = [""]
        self._layout = ui.volumeForm.layout()
        self._rows = [(ui.inputVolumeLabel, ui.inputVolumeSelector)]

    @property
    def volumes(self) -> list[Any]:
        """The chosen volumes in the order of the channels; None where none is chosen."""
        return [selector.currentNode() for _label, selector in self._rows[:len(self.names)]]

    def update(self, info: Any, others: list[Any]) -> None:
        """Show a selector for each channel of the model, with the chosen ones behind the first."""
        self.names = _channelNames(info, self._rows[0][1].currentNode())
        while len(self._rows) < len(self.names):
            self._addRow()
        for number, (label, selector) in enumerate(self._rows):
            isUsed = number < len(self.names)
            label.visible = selector.visible = isUsed
            if isUsed:
                label.text = _("{channel}:").format(channel=self.names[number] or _("Volume"))
            if number > 0 and isUsed:
                wasBlocked = selector.blockSignals(True)
                selector.setCurrentNode(others[number - 1] if number <= len(others) else None)
                selector.blockSignals(wasBlocked)

    def missing(self) -> list[str]:
        """The channels that have no volume; "" is the only channel of a model."""
        return [name for name, volume in zip(self.names, self.volumes, strict=True) if volume is None]

    def _addRow(self) -> None:
        label, selector = qt.QLabel(), slicer.qMRMLNodeComboBox()
        label.textFormat = qt.Qt.PlainText
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode"]
        selector.showChildNodeTypes = selector.addEnabled = selector.removeEnabled = False
        selector.noneEnabled = True
        selector.noneDisplay = _("Choose a volume")
        selector.toolTip = _("The image of this channel. It may lie on another grid than the first.")
        selector.setMRMLScene(slicer.mrmlScene)
        selector.setCurrentNode(None)
        self._layout.insertRow(len(self._rows), label, selector)
        selector.currentNodeChanged.connect(self._onChanged)
        self._rows.append((label, selector))

    def _onChanged(self, node: Any = None) -> None:
        self.changed.emit()


def _channelNames(info: Any, firstVolume: Any) -> list[str]:
    """The names of the channels that need a volume of their own; [""] where one volume is all."""
    count = info.image_channels if info is not None else 1
    if count == 1:
        return [""]
    names = [str(channel.get("name") or _("Channel {number}").format(number=number))
             for number, channel in enumerate(info.channels[:count], 1)]
    isColour = firstVolume is not None and firstVolume.IsA("vtkMRMLVectorVolumeNode")
    if count == len(_COLOURS) and (isColour or {name.lower() for name in names} == _COLOURS):
        return [""]
    return names
