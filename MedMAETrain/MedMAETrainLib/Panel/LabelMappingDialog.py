"""The dialog that asks which labels of the project segments are, where their names do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import qt
from slicer.i18n import tr as _

from medmae.volumes.segments import Segment
from MedMAETrainLib.Panel.Form import FormDialog, swatch
from MedMAETrainLib.ProjectLabels import likeliestLabel


class LabelMappingDialog(FormDialog):
    """One row a segment: it is a label of the project, a new label, or left out.

    >>> dialog = LabelMappingDialog(project.labels, ["Leber"], "CT of somebody")
    >>> dialog.mapping if dialog.show() else None
    """

    def __init__(self, labels: Sequence[Segment], segments: Iterable[str], what: str) -> None:
        super().__init__(_("Segments and labels"), height=260)
        self.addText(_("{what} has segments that are named like no label of the project. Which labels are "
                       "they?").format(what=what))
        self._names = [label.name for label in labels]
        self.selectors: dict[str, qt.QComboBox] = {}
        form = qt.QFormLayout()
        for name in segments:
            selector = self.selectors[name] = qt.QComboBox()
            for label in labels:
                selector.addItem(swatch(label.color), label.name)
            selector.addItem(_("A new label: {name}").format(name=name))
            selector.addItem(_("Leave it out"))
            likeliest = likeliestLabel(labels, name)
            selector.setCurrentIndex(self._names.index(likeliest) if likeliest is not None else len(self._names))
            selector.currentIndexChanged.connect(self._update)
            title = qt.QLabel()
            title.textFormat = qt.Qt.PlainText
            title.text = name
            form.addRow(title, selector)
        content, scroll = qt.QWidget(), qt.QScrollArea()
        content.setLayout(form)
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(qt.QFrame.NoFrame)
        self.layout.addWidget(scroll, 1)
        self.hintLabel = self.addText("")
        self._update()

    @property
    def mapping(self) -> dict[str, str | None]:
        """The label of each segment; None: it is left out."""
        found: dict[str, str | None] = {}
        for name, selector in self.selectors.items():
            index = selector.currentIndex
            found[name] = self._names[index] if index < len(self._names) else (
                name if index == len(self._names) else None)
        return found

    def _update(self, index: int = 0) -> None:
        isNew = any(label == name and name not in self._names for name, label in self.mapping.items())
        self.hintLabel.text = _("A new label is expected in every case: those that do not show it count as not "
                                "annotated yet, until it is drawn there or said that there is none to "
                                "see.") if isNew else ""
