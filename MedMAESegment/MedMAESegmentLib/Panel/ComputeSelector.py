"""The choice of where to compute: this computer's processor or graphics card, or another computer."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAESegmentLib.Device import Device
from MedMAESegmentLib.Panel.Choices import TARGET_PREFIX
from MedMAESegmentLib.Signal import Signal


class ComputeSelector:
    """Lists the devices and the user's targets in a combo box; `value` is "auto", "cpu", "cuda:0" or "target:NAME"."""

    def __init__(self, comboBox: qt.QComboBox, elsewhere: str = "") -> None:
        """`elsewhere` is how a target is listed, with {name}; default: as another computer."""
        self.changed = Signal()
        self.note = ""
        self._elsewhere = elsewhere or _("{name} (another computer)")
        self._box = comboBox
        self._values: list[str] = []
        self.update()
        comboBox.currentIndexChanged.connect(self._onIndexChanged)

    @property
    def value(self) -> str:
        """What is chosen."""
        return self._values[max(self._box.currentIndex, 0)]

    @value.setter
    def value(self, value: str) -> None:
        self.note = ""
        if value not in self._values:
            self.note = _("{name} is no longer among the computers; the place is chosen automatically.").format(
                name=value.removeprefix(TARGET_PREFIX))
            value = Device.AUTO.value
        self._box.setCurrentIndex(self._values.index(value))

    def update(self) -> None:
        """List the devices and the targets as they are now; what was chosen stays so while it is there."""
        chosen = self.value if self._values else Device.AUTO.value
        entries = [(device.value, device.label()) for device in Device]
        entries += [(TARGET_PREFIX + name, self._elsewhere.format(name=name)) for name in _targets()]
        wasBlocked = self._box.blockSignals(True)
        self._box.clear()
        self._values = [value for value, _label in entries]
        self._box.addItems([label for _value, label in entries])
        self.value = chosen
        self._box.blockSignals(wasBlocked)

    def _onIndexChanged(self, index: int) -> None:
        self.changed.emit()


def _targets() -> list[str]:
    from medmae.jobs.targets import LOCAL, list_targets

    try:
        return [target.name for target in list_targets() if target.name != LOCAL]
    except BadInput:  # a damaged list must not keep anybody from computing here; the Train module tells about it
        return []
