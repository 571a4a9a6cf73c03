"""The part of the panel in which a model is chosen and models are managed; needs the Slicer application."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.Panel import ModelFacts as facts
from MedMAESegmentLib.Panel.ModelDetails import ModelDetails
from MedMAESegmentLib.Panel.ModelList import ModelList
from MedMAESegmentLib.Panel.ModelManager import ModelManager
from MedMAESegmentLib.Panel.ModelPreview import showPreview
from MedMAESegmentLib.Signal import Signal

_UI_FILE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "ModelSection.ui"
_LONGEST_README = 200_000  # characters; a stranger's may have any number
_TASKS = ("segmentation", "classification")


class ModelSection:
    """Lists the installed models for segmentation and classification, and remembers which one is chosen.

    >>> section = ModelSection(ui.modelCollapsibleButton, logic)
    >>> section.chosen.connect(lambda name: print(name, section.info))
    >>> section.name = "liver"  # as the scene says
    >>> section.update()        # reads the registry; chooses the first model where none was chosen

    Attributes:
        models: `medmae.models.ModelInfo` of every model that can be chosen, by name.
        chosen: emitted with `name` whenever it changes, and by `update` when what is known about it changes.
        isIdle: says whether no computation is under way; while one is, models are neither removed nor replaced.
    """

    def __init__(self, parentWidget: Any, logic: Any) -> None:
        """`parentWidget` has a layout, at whose end this goes; `logic` is a `ModelShelf`."""
        self.chosen = Signal()
        self.isIdle: Callable[[], bool] = lambda: True
        self.models: dict[str, Any] = {}
        self._logic = logic
        self._name, self._info, self._damaged, self._problem = "", None, {}, ""
        widget = slicer.util.loadUI(str(_UI_FILE))
        parentWidget.layout().addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self._list = ModelList(self.ui.modelTree)
        self._list.selected.connect(self._onSelected)
        self.manager = ModelManager(self.ui.modelManageButton, logic, self)
        self.ui.modelSearchEdit.textChanged.connect(self.onSearch)
        self.ui.modelDetailsButton.clicked.connect(self.onDetails)
        self.showWork("")
        self._show()

    @property
    def name(self) -> str:
        """The chosen model, "" for none. It may be missing or damaged: then `info` is None."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._choose(name)

    @property
    def info(self) -> Any:
        """`medmae.models.ModelInfo` of the chosen model; None where there is none that can be used."""
        return self._info

    @property
    def folder(self) -> Path | None:
        """The folder of the chosen model, also of a damaged one; None where it is not installed."""
        isThere = self._name in self.models or self._name in self._damaged
        return self._logic.modelsFolder() / self._name if isThere else None

    def update(self) -> None:
        """Read which models there are, keeping the choice; the first one where none was chosen."""
        try:
            self.models, self._damaged = self._logic.surveyModels(_TASKS)
            self._problem = ""
        except OSError as error:
            self.models, self._damaged = {}, {}
            self._problem = _("The list of models cannot be read: {reason}").format(reason=error)
        self._list.fill(self.models, self._damaged)
        self._choose(self._name or next(iter(self.models), ""))

    def onSearch(self, text: str) -> None:
        """Show the models that have every word of the text."""
        self._show()

    def onDetails(self, clicked: bool = False) -> None:
        """Open the dialog with everything about the chosen model."""
        folder = self.folder
        if self._info is not None and folder is not None:
            ModelDetails(self._name, self._info, folder, _readme(folder)).show()

    def showWork(self, message: str) -> None:
        """Say what is done with models at the moment; "" for nothing."""
        self.ui.modelBusyLabel.text = message
        self.ui.modelBusyLabel.visible = self.ui.modelBusyBar.visible = bool(message)

    def _onSelected(self, name: str) -> None:
        if name:
            self._choose(name)

    def _choose(self, name: str) -> None:
        info = self.models.get(name)
        hasChanged = (name, info) != (self._name, self._info)
        self._name, self._info = name, info
        if name != self._list.selectedName:
            self._list.select(name)
        self._show()
        if hasChanged:
            self.chosen.emit(name)

    def _show(self) -> None:
        found = self._list.search(self.ui.modelSearchEdit.text)
        hasRows = bool(self.models or self._damaged)
        self.ui.modelSearchEdit.enabled = hasRows
        self.ui.modelTree.visible = found > 0
        self.ui.modelEmptyLabel.visible = not found
        self.ui.modelEmptyLabel.text = self._emptyText(hasRows)
        self.ui.modelNameLabel.text = self._name
        self.ui.modelDescriptionLabel.text = self._description()
        self.ui.modelDetailsButton.enabled = self._info is not None
        self.ui.modelPreviewLabel.visible = self._info is not None
        if self._info is not None:
            showPreview(self.ui.modelPreviewLabel, self.folder)
        self.manager.show()

    def _emptyText(self, hasRows: bool) -> str:
        if self._problem:
            return self._problem
        if hasRows:
            return _("No model has all of these words.")
        return _("No models yet. Import one with Manage, or train one with MedMAE Train.")

    def _description(self) -> str:
        if self._info is not None:
            return facts.description(self._info)
        if self._name in self._damaged:
            return _("This model is damaged. {reason}").format(reason=self._damaged[self._name])
        if self._name:
            return _("This model is not installed on this computer. Import it with Manage, or choose another one.")
        return ""


def _readme(folder: Path) -> str:
    try:
        with open(folder / "README.md", encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_README)
    except OSError:  # it belongs to a model, but none needs it
        return ""
