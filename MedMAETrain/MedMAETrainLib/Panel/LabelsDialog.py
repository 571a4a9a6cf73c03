"""The dialog in which the labels of a project are named, coloured and ordered."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from MedMAESegmentLib.Panel import Dialogs as dialogs
from slicer.i18n import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.Panel.CaseTexts import named
from MedMAETrainLib.Panel.Form import swatch
from MedMAETrainLib.Project import Project


class LabelsDialog:
    """Every change is in the project at once.

    >>> LabelsDialog(project).show()
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.dialog = qt.QDialog(slicer.util.mainWindow())
        self.dialog.windowTitle = _("Labels of {project}").format(project=project.name)
        self.dialog.resize(420, 340)
        self.list = qt.QListWidget()
        self.addButton = self._button(_("Add..."), _("Add a label."), self.onAdd)
        self.renameButton = self._button(_("Rename..."), _("Change the name of the label everywhere."), self.onRename)
        self.colorButton = self._button(_("Colour..."), _("Change the colour of the label."), self.onColor)
        self.upButton = self._button(_("Up"), _("Where segments overlap, the upper label keeps the voxels."),
                                     lambda _clicked=False: self.move(-1))
        self.downButton = self._button(_("Down"), _("Where segments overlap, the upper label keeps the voxels."),
                                       lambda _clicked=False: self.move(1))
        self.removeButton = self._button(_("Remove"), _("Remove a label that no case shows."), self.onRemove)
        self.hintLabel = qt.QLabel()
        self.hintLabel.textFormat = qt.Qt.PlainText
        self.hintLabel.wordWrap = True
        closing = qt.QDialogButtonBox()
        closing.setStandardButtons(qt.QDialogButtonBox.Close)
        closing.rejected.connect(self.dialog.reject)
        column = qt.QVBoxLayout()
        for button in (self.addButton, self.renameButton, self.colorButton, self.upButton, self.downButton,
                       self.removeButton):
            column.addWidget(button)
        column.addStretch(1)
        row = qt.QHBoxLayout()
        row.addWidget(self.list, 1)
        row.addLayout(column)
        layout = qt.QVBoxLayout()
        layout.addLayout(row)
        layout.addWidget(self.hintLabel)
        layout.addWidget(closing)
        self.dialog.setLayout(layout)
        self.list.currentRowChanged.connect(self._update)
        self._fill("")

    def show(self) -> None:
        """Open the dialog until the user closes it."""
        self.dialog.exec()
        self.dialog.deleteLater()

    @property
    def name(self) -> str:
        """The selected label, "" for none."""
        row = self.list.currentRow
        return self._project.labels[row].name if 0 <= row < len(self._project.labels) else ""

    def onAdd(self, clicked: bool = False) -> None:
        """Ask for a name and add a label."""
        name = dialogs.enteredText(_("Add label"), _("Name of the label:"), "")
        if name:
            self._change(name, lambda: self._project.addLabel(name))

    def onRename(self, clicked: bool = False) -> None:
        """Ask for another name."""
        before = self.name
        name = dialogs.enteredText(_("Rename label"), _("Name of the label:"), before)
        if name and name != before:
            self._change(name, lambda: self._project.setLabel(before, name=name))

    def onColor(self, clicked: bool = False) -> None:
        """Ask for another colour."""
        name = self.name
        color = qt.QColorDialog.getColor(qt.QColor.fromRgbF(*self._project.label(name).color), self.dialog)
        if color.isValid():
            self._change(name, lambda: self._project.setLabel(
                name, color=(color.redF(), color.greenF(), color.blueF())))

    def onRemove(self, clicked: bool = False) -> None:
        """Remove the label, unless a case shows it."""
        name = self.name
        self._change("", lambda: self._project.removeLabel(name))

    def move(self, step: int) -> None:
        """Move the label up (-1) or down (1)."""
        row, names = self.list.currentRow, [label.name for label in self._project.labels]
        names.insert(row + step, names.pop(row))
        self._change(names[row + step], lambda: self._project.setLabelOrder(names))

    def _change(self, selected: str, change: Callable[[], object]) -> None:
        try:
            change()
        except (BadInput, ValueError) as error:
            dialogs.tellError(_("The labels were not changed.") + f"\n\n{named(str(error), self._project.cases)}")
            selected = self.name
        self._fill(selected)

    def _fill(self, selected: str) -> None:
        wasBlocked = self.list.blockSignals(True)
        self.list.clear()
        for row, label in enumerate(self._project.labels):
            self.list.addItem(qt.QListWidgetItem(swatch(label.color), label.name))
            if label.name == selected or row == 0:
                self.list.setCurrentRow(row)
        self.list.blockSignals(wasBlocked)
        self._update()

    def _update(self, row: int = 0) -> None:
        row, count = self.list.currentRow, len(self._project.labels)
        isOne = bool(self.name)
        for button in (self.renameButton, self.colorButton, self.removeButton):
            button.enabled = isOne
        self.upButton.enabled, self.downButton.enabled = isOne and row > 0, isOne and row < count - 1
        users = sum(any(segment.label == self.name for segment in case.segments) for case in self._project.cases)
        if not count:
            self.hintLabel.text = _("No labels yet. The segments of the first annotated case become the labels, or add "
                                    "what you want to draw.")
        else:
            self.hintLabel.text = _("{label} is drawn on {count} cases. Where segments overlap, the label that stands "
                                    "above keeps the voxels, in segmentations that are saved from now on.").format(
                label=self.name, count=users)

    @staticmethod
    def _button(text: str, toolTip: str, do: Callable[..., None]) -> qt.QPushButton:
        button = qt.QPushButton(text)
        button.toolTip = toolTip
        button.clicked.connect(do)
        return button
