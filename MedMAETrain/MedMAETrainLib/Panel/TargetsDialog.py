"""The dialog "Computers": which other computers there are, and whether they are ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from MedMAESegmentLib.Panel import Dialogs as dialogs
from MedMAESegmentLib.Panel.SingleClicks import SingleClicks
from slicer.i18n import tr as _

from medmae.errors import BadInput
from medmae.inference.memory import format_memory
from medmae.jobs.cleaning import Cleaned, clean
from medmae.jobs.target import Target
from medmae.jobs.targets import LOCAL, add_target, list_targets, remove_target
from MedMAETrainLib.Panel.TargetCheck import TargetCheck
from MedMAETrainLib.Panel.TargetForm import TargetForm, kindName


class TargetsDialog:
    """Lists the targets; adds, changes, removes and checks them. `dialog` is the QDialog.

    >>> TargetsDialog().show()
    """

    def __init__(self, onChanged: Callable[[], Any] = lambda: None) -> None:
        """`onChanged` is called when a target was added, changed or removed."""
        self._onChanged = onChanged
        self._targets: list[Target] = []
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Computers")
        self.dialog.resize(560, 520)
        self.list = qt.QListWidget()
        self.list.setMaximumHeight(130)
        self.emptyLabel = _textLabel(_("MedMAE can compute on a workstation with a graphics card (over SSH) or on a "
                                       "Slurm cluster. Nothing has to be installed there but Python 3.11 or newer. Add "
                                       "the first one."))
        self.addButton, self.editButton = _button(_("Add…"), self.onAdd), _button(_("Edit…"), self.onEdit)
        self.removeButton = _button(_("Remove"), self.onRemove)
        self.checkButton = _button(_("Check"), self.onCheck)
        self.checkButton.toolTip = _("Sign in and see whether runs can be computed there; tells what to do if not.")
        self.cleanButton = _button(_("Free space…"), self.onClean)
        self.cleanButton.toolTip = _("Delete images there that were sent for runs and are not needed any more.")
        self.check = TargetCheck()
        self.check.changed.connect(self._show)
        self.closeButton = _button(_("Close"), self.onClose)
        self._singleClicks = SingleClicks(self.checkButton, self.cleanButton)
        buttons, bottom = qt.QHBoxLayout(), qt.QHBoxLayout()
        for button in (self.addButton, self.editButton, self.removeButton):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(self.cleanButton)
        buttons.addWidget(self.checkButton)
        bottom.addStretch(1)
        bottom.addWidget(self.closeButton)
        layout = qt.QVBoxLayout()
        layout.addWidget(self.emptyLabel)
        layout.addWidget(self.list)
        layout.addLayout(buttons)
        layout.addWidget(self.check.widget, 1)
        layout.addLayout(bottom)
        self.dialog.setLayout(layout)
        self.list.currentRowChanged.connect(self._onRow)
        self.list.itemDoubleClicked.connect(lambda _item: self.onEdit())
        self.dialog.finished.connect(lambda _result: self.check.stop())
        self.update()

    @property
    def selected(self) -> Target | None:
        """The target that is chosen in the list."""
        row = self.list.currentRow
        return self._targets[row] if 0 <= row < len(self._targets) else None

    def show(self) -> None:
        """Open the dialog until the user closes it."""
        self.dialog.exec()
        self.dialog.deleteLater()

    def update(self, name: str = "") -> None:
        """List the targets as they are now, and choose the one called `name`."""
        name = name or (self.selected.name if self.selected is not None else "")
        problem = ""
        try:
            self._targets = [target for target in list_targets() if target.name != LOCAL]
        except BadInput as error:
            self._targets, problem = [], str(error)
        wasBlocked = self.list.blockSignals(True)
        self.list.clear()
        self.list.addItems([_line(target) for target in self._targets])
        names = [target.name for target in self._targets]
        self.list.setCurrentRow(names.index(name) if name in names else 0 if names else -1)
        self.list.blockSignals(wasBlocked)
        self.check.clear()
        if problem:
            self.check.say(problem)
        self._show()

    def onAdd(self, clicked: bool = False) -> None:
        """Ask for a new target."""
        form = self.newForm(None)
        if form.ask():
            self._keep(form.target, replace=False)

    def onEdit(self, clicked: bool = False) -> None:
        """Change the chosen target."""
        target = self.selected
        if target is not None and self.editButton.enabled:
            form = self.newForm(target)
            if form.ask():
                self._keep(form.target, replace=True)

    def onRemove(self, clicked: bool = False) -> None:
        """Forget the chosen target."""
        target = self.selected
        if target is None or not dialogs.isConfirmed(_(
                "Forget the computer {name}? Nothing on it is deleted, and runs that are computed there are still "
                "followed.").format(name=target.name)):
            return
        self._change(lambda: remove_target(target.name))

    def onCheck(self, clicked: bool = False) -> None:
        """See whether the chosen target is ready; or end that."""
        if self.check.isBusy:
            self.check.stop()
        elif self.selected is not None:
            self.check.start(self.selected)

    def onClean(self, clicked: bool = False) -> None:
        """Delete what was sent to the chosen target and is not needed any more."""
        target = self.selected
        if target is not None and dialogs.isConfirmed(_(
                "Delete the images and models that were sent to {name} and that no run there needs any more? Runs that "
                "need them later send them again.").format(name=target.name)):
            self.check.do(_("Deleting on {name}…").format(name=target.name), lambda: clean(target), _cleanedText)

    def onClose(self, clicked: bool = False) -> None:
        """Close the dialog."""
        self.dialog.accept()

    def newForm(self, target: Target | None) -> TargetForm:
        """The form for a target; None: for a new one."""
        return TargetForm(target, [known.name for known in self._targets])

    def _keep(self, target: Target, replace: bool) -> None:
        self._change(lambda: add_target(target, replace=replace), target.name)
        if self.selected is not None and self.selected.name == target.name:
            self.check.start(target)

    def _change(self, change: Callable[[], None], name: str = "") -> None:
        try:
            change()
        except (BadInput, OSError) as error:
            dialogs.tellError(_("The list of computers was not changed.") + f"\n\n{error}")
        self.update(name)
        self._onChanged()

    def _onRow(self, row: int) -> None:
        self.check.clear()
        self._show()

    def _show(self) -> None:
        isChosen, isBusy = self.selected is not None, self.check.isBusy
        self.emptyLabel.visible = not self._targets
        self.list.visible = bool(self._targets)
        self.list.enabled = self.addButton.enabled = not isBusy
        for button in (self.editButton, self.removeButton, self.cleanButton):
            button.enabled = isChosen and not isBusy
        self.checkButton.enabled = isChosen
        self.checkButton.text = _("Cancel") if isBusy else _("Check")


def _line(target: Target) -> str:
    place = target.host or _("this computer")
    return f"{target.name}:  {kindName(target.kind)}, {place}"


def _cleanedText(cleaned: Cleaned) -> str:
    return _("Files deleted there: {count} ({size}). Still needed by runs: {kept} ({keptSize}).").format(
        count=cleaned.removed, size=format_memory(cleaned.removed_bytes) if cleaned.removed else "0 MB",
        kept=cleaned.kept, keptSize=format_memory(cleaned.kept_bytes) if cleaned.kept else "0 MB")


def _button(text: str, do: Callable[..., None]) -> qt.QPushButton:
    button = qt.QPushButton(text)
    button.setAutoDefault(False)
    button.clicked.connect(do)
    return button


def _textLabel(text: str) -> qt.QLabel:
    label = qt.QLabel(text)
    label.setTextFormat(qt.Qt.PlainText)
    label.setWordWrap(True)
    return label
