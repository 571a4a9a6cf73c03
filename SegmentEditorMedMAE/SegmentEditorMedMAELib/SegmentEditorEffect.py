"""The effect MedMAE of the Segment Editor: a model into the segmentation that is being edited."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import qt
import slicer
from MedMAESegmentLib.EditorResult import LabelMapping
from MedMAESegmentLib.EditorRun import EditorRun
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAESegmentLib.SegmentLogic import SegmentLogic
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

BY_NAME, SELECTED = "ByName", "Selected"


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """Options of the effect, one button that starts and cancels, how far it is.

    What is chosen is kept in the Segment Editor's parameter node: "Model", "Structure" (empty: all of them) and
    "Target" (`BY_NAME` or `SELECTED`).
    """

    def __init__(self, scriptedEffect) -> None:  # noqa: ANN001 - qSlicerSegmentEditorScriptedEffect
        scriptedEffect.name = "MedMAE"  # not translated: modules find effects by name
        scriptedEffect.title = _("MedMAE")
        scriptedEffect.perSegment = False
        scriptedEffect.requireSegments = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._models: dict[str, Any] = {}
        self._run = EditorRun(SegmentLogic(), scriptedEffect.saveStateForUndo)
        self._run.progressed.connect(self._onProgress)
        self._run.finished.connect(self._onFinished)

    @property
    def logic(self) -> Any:
        """What runs the models, `SegmentLogic` or something like it."""
        return self._run.logic

    @logic.setter
    def logic(self, logic: Any) -> None:
        self._run.logic = logic

    def clone(self):  # noqa: ANN201 - qSlicerSegmentEditorScriptedEffect
        """Another effect of this kind, as the Segment Editor asks for."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        cloned = effects.qSlicerSegmentEditorScriptedEffect(None)
        cloned.setPythonSource(Path(__file__).as_posix())
        return cloned

    def icon(self) -> qt.QIcon:
        """The picture on the effect's button."""
        return qt.QIcon(str(Path(__file__).parents[1] / "Resources" / "Icons" / "SegmentEditorMedMAE.png"))

    def helpText(self) -> str:
        """What the effect does, shown above its options."""
        return "<html>" + _("""Run a MedMAE model on the source volume and take the result into this segmentation.
Within the editable area and the editable intensity range (see Masking) a segment becomes what the model found; outside
it stays as it is. Not for clinical use.""")

    def setupOptionsFrame(self) -> None:
        """Build the options once."""
        effect = self.scriptedEffect
        self.modelSelector, self.structureSelector, self.targetSelector = (qt.QComboBox() for _index in range(3))
        self.modelSelector.setToolTip(_("Models are trained in MedMAE Train or imported in MedMAE Segment."))
        self.structureSelector.setToolTip(_("Take all structures of the model, or one."))
        self.targetSelector.setToolTip(_("Where the structures go. Segments that are missing are added."))
        self.targetSelector.addItem(_("Segments of the same names"), BY_NAME)
        self.targetSelector.addItem(_("The selected segment"), SELECTED)
        effect.addLabeledOptionsWidget(_("Model:"), self.modelSelector)
        effect.addLabeledOptionsWidget(_("Structures:"), self.structureSelector)
        effect.addLabeledOptionsWidget(_("Into:"), self.targetSelector)
        self.applyButton = qt.QPushButton(_("Apply"))
        self.applyButton.objectName = "SegmentEditorMedMAEApply"
        self.progressBar = qt.QProgressBar()
        self.progressBar.setRange(0, 1000)
        self.statusLabel = qt.QLabel()
        self.statusLabel.setTextFormat(qt.Qt.PlainText)
        self.statusLabel.setWordWrap(True)
        for widget in (self.applyButton, self.progressBar, self.statusLabel):
            effect.addOptionsWidget(widget)
        self.progressBar.visible = False
        self.modelSelector.currentIndexChanged.connect(self.updateMRMLFromGUI)
        self.structureSelector.currentIndexChanged.connect(self.updateMRMLFromGUI)
        self.targetSelector.currentIndexChanged.connect(self.updateMRMLFromGUI)
        self.applyButton.clicked.connect(self.onApply)

    def setMRMLDefaults(self) -> None:
        """What is chosen in a new scene."""
        for name, value in (("Model", ""), ("Structure", ""), ("Target", BY_NAME)):
            self.scriptedEffect.setParameterDefault(name, value)

    def activate(self) -> None:
        """Look for new models each time the effect is chosen."""
        self._models = self.logic.models()
        self.updateGUIFromMRML()

    def deactivate(self) -> None:
        """End what is under way: its progress would not be seen any more."""
        self._run.cancel()

    def cleanup(self) -> None:
        """End what is under way when the Segment Editor goes."""
        self._run.cancel()

    def sourceVolumeNodeChanged(self) -> None:
        """End what is under way on another volume."""
        self._run.cancel()
        self._updateButton()

    def updateGUIFromMRML(self) -> None:
        """Show what is chosen."""
        model = self.scriptedEffect.parameter("Model")
        _choose(self.modelSelector, [(name, name) for name in self._models], model)
        info = self._models.get(self.modelSelector.currentText)
        structures = [str(label["name"]) for label in info.labels[1:]] if info else []
        _choose(self.structureSelector, [(_("All"), ""), *((name, name) for name in structures)],
                self.scriptedEffect.parameter("Structure"))
        wasBlocked = self.targetSelector.blockSignals(True)
        self.targetSelector.setCurrentIndex(max(0, self.targetSelector.findData(
            self.scriptedEffect.parameter("Target"))))
        self.targetSelector.blockSignals(wasBlocked)
        self._updateButton()

    def updateMRMLFromGUI(self, index: int = 0) -> None:
        """Keep what is chosen."""
        for name, selector in (("Model", self.modelSelector), ("Structure", self.structureSelector),
                               ("Target", self.targetSelector)):
            self.scriptedEffect.setParameter(name, selector.itemData(selector.currentIndex) or "")
        self.updateGUIFromMRML()

    def onApply(self, clicked: bool = False) -> None:
        """Start, or cancel what was started."""
        if self._run.isRunning:
            self._run.cancel()
            return
        effect = self.scriptedEffect
        editorNode = effect.parameterSetNode()
        structure = self.structureSelector.itemData(self.structureSelector.currentIndex)
        isForSelected = self._target() == SELECTED
        if isForSelected and not effect.confirmCurrentSegmentVisible():
            return
        mapping = LabelMapping((structure,) if structure else (),
                               editorNode.GetSelectedSegmentID() if isForSelected else "")
        try:
            with (slicer.util.tryWithErrorDisplay(_("The model could not be run."), waitCursor=True),
                  contextlib.suppress(RunCancelled)):
                self._onProgress(0.0, _("Starting"))
                self._run.start(editorNode, self.modelSelector.currentText, mapping)
        finally:
            if not self._run.isRunning:
                self.progressBar.visible, self.statusLabel.text = False, ""
            self._updateButton()

    def _onProgress(self, fraction: float, message: str) -> None:
        self.progressBar.visible = True
        self.progressBar.setValue(round(1000 * fraction))
        self.statusLabel.text = message
        self.applyButton.text, self.applyButton.enabled = _("Cancel"), True
        self.applyButton.setToolTip(_("End the computation at once."))

    def _onFinished(self, names: list[str], error: Exception | None) -> None:
        self.progressBar.visible = False
        if error is None:
            self.statusLabel.text = _("Done: {names}.").format(names=", ".join(names))
        elif isinstance(error, RunCancelled):
            self.statusLabel.text = _("Cancelled.")
        else:
            self.statusLabel.text = str(error)
            slicer.util.errorDisplay(_("The model could not be run.") + "\n\n" + str(error))
        self._updateButton()

    def _updateButton(self) -> None:
        if self._run.isRunning:
            return
        editorNode = self.scriptedEffect.parameterSetNode()
        button = self.applyButton
        button.text = _("Apply")
        if not self._models:
            reason = _("No models yet. Train one with MedMAE Train.")
        elif editorNode is None or editorNode.GetSourceVolumeNode() is None:
            reason = _("Choose a source volume.")
        elif self._target() == SELECTED and not editorNode.GetSelectedSegmentID():
            reason = _("Select a segment, or take the structures into segments of the same names.")
        else:
            reason = ""
        button.enabled = not reason
        button.setToolTip(reason or _("Run the model into this segmentation."))

    def _target(self) -> str:
        return self.targetSelector.itemData(self.targetSelector.currentIndex)


def _choose(selector: qt.QComboBox, items: list[tuple[str, str]], data: str) -> None:
    """Fill a selector with (text, data) and choose one, or the first, without telling anybody."""
    wasBlocked = selector.blockSignals(True)
    selector.clear()
    for text, value in items:
        selector.addItem(text, value)
    selector.setCurrentIndex(max(0, selector.findData(data)) if items else -1)
    selector.blockSignals(wasBlocked)
