"""MedMAETrain: finetune an encoder on the annotated volumes in the scene; the model then appears in MedMAE Segment."""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import Annotated

import qt
import slicer
import vtk
from MedMAESegmentLib.Application import firstNode
from MedMAESegmentLib.Device import Device
from MedMAESegmentLib.FollowedJob import RunCancelled
from MedMAETrainLib.TrainLogic import TrainLogic
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLVectorVolumeNode, vtkMRMLVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

#
# MedMAETrain
#


class MedMAETrain(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent) -> None:  # noqa: ANN001 - qSlicerScriptedLoadableModule
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMAE Train")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "MedMAESegment"]
        parent.contributors = ["MedMAE contributors"]
        parent.helpText = _("""
Makes a segmentation model from a handful of annotated volumes. Add each volume with its segmentation, choose the
encoder to start from, press Finetune. Training goes on when Slicer is closed; the finished model appears in MedMAE
Segment.
""")
        parent.acknowledgementText = _("""
Implements the methods VIS-MAE and GL-MAE; every model names the data and the work that it is made from.
""")


#
# MedMAETrainParameterNode
#


class Network(Enum):
    """Networks to train from scratch: (method, preset), or what suits the images."""

    AUTO = ""
    VOLUMES_TINY = "gl-mae tiny"
    VOLUMES_SMALL = "gl-mae small"
    VOLUMES_BASE = "gl-mae base"
    SLICES_TINY = "vis-mae tiny"
    SLICES_SMALL = "vis-mae small"
    SLICES_BASE = "vis-mae base"

    def label(self) -> str:
        """The choice as the panel names it."""
        if self is Network.AUTO:
            return _("Automatic")
        method, preset = self.value.split()
        return (_("3-D, {preset}") if method == "gl-mae" else _("2-D, slice by slice, {preset}")).format(preset=preset)


class Modality(Enum):
    """DICOM codes that decide how intensities are normalised."""

    AUTO = ""
    CT = "CT"
    MR = "MR"
    PT = "PT"
    US = "US"
    DX = "DX"

    def label(self) -> str:
        """The choice as the panel names it."""
        return {"": _("Automatic"), "PT": _("PET"), "US": _("Ultrasound"), "DX": _("X-ray")}.get(self.value, self.value)


@parameterNodeWrapper
class MedMAETrainParameterNode:
    """What is chosen in the panel, saved with the scene.

    currentVolume, currentSegmentation - The pair that "Add case" adds.
    volumes, segmentations - The cases, in the order of the table.
    encoder - Name of the encoder in the list of models; "none": from scratch; empty: not chosen yet.
    modelName - Name of the finished model; empty: made from the segment names.
    network, modality, steps, device, allowMissing - See MedMAETrainLogic.finetune.
    """

    currentVolume: vtkMRMLScalarVolumeNode | vtkMRMLVectorVolumeNode | None
    currentSegmentation: vtkMRMLSegmentationNode
    volumes: list[vtkMRMLVolumeNode]
    segmentations: list[vtkMRMLSegmentationNode]
    encoder: str = ""
    modelName: str = ""
    network: Network = Network.AUTO
    modality: Modality = Modality.AUTO
    steps: Annotated[int, WithinRange(0, 1000000)] = 0
    device: Device = Device.AUTO
    allowMissing: bool = False

    def cases(self) -> list[tuple[vtkMRMLVolumeNode, vtkMRMLSegmentationNode]]:
        """The pairs whose nodes are still in the scene."""
        pairs = zip(list(self.volumes), list(self.segmentations), strict=False)
        return [(volume, segmentation) for volume, segmentation in pairs if volume and segmentation]

    def setCases(self, cases: list[tuple[vtkMRMLVolumeNode, vtkMRMLSegmentationNode]]) -> None:
        """Replace the pairs."""
        self.volumes = [volume for volume, _segmentation in cases]
        self.segmentations = [segmentation for _volume, segmentation in cases]


#
# MedMAETrainWidget
#


class MedMAETrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: the table of cases, where to start from, one button, how far it is."""

    def __init__(self, parent=None) -> None:  # noqa: ANN001 - qMRMLWidget
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._encoders = []
        self._cases = []
        self._job = None
        self._isStarting = False

    def setup(self) -> None:
        """Build the panel when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedMAETrain.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedMAETrainLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.updateCaseTable)
        self.ui.encoderSelector.currentTextChanged.connect(self.onEncoderSelected)
        self.ui.addCaseButton.clicked.connect(self.onAddCaseButton)
        self.ui.removeCaseButton.clicked.connect(self.onRemoveCaseButton)
        self.ui.caseTable.itemSelectionChanged.connect(self._checkCanApply)
        self.ui.finetuneButton.clicked.connect(self.onFinetuneButton)
        self.ui.caseTable.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        self.ui.progressBar.visible = False
        self.initializeParameterNode()
        for job in self.logic.findRunning():  # the newest comes last and is the one shown
            self.followJob(job)

    def cleanup(self) -> None:
        """Stop following when the module is closed; training goes on."""
        if self.logic is not None:
            self.logic.cancelHandOver()
            for job in self.logic.jobs:
                job.stopFollowing()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Connect to the scene and look for new encoders each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Leave the scene alone while another module is open."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Forget the cases; a run under way has its own copy of them."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Start again with the empty scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Show the choices that came with a scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Connect the panel to the scene's parameter node, with the first volume and segmentation as defaults."""
        self.setParameterNode(None)
        parameterNode = self.logic.getParameterNode()
        if not parameterNode.currentVolume:
            parameterNode.currentVolume = firstNode("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")
        if not parameterNode.currentSegmentation:
            parameterNode.currentSegmentation = firstNode("vtkMRMLSegmentationNode")
        self.setParameterNode(parameterNode)
        self.updateEncoders()

    def setParameterNode(self, inputParameterNode: MedMAETrainParameterNode | None) -> None:
        """Connect the panel to a parameter node, or disconnect it."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateCaseTable)
        self._parameterNode = inputParameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateCaseTable)
        self.updateCaseTable()

    def updateEncoders(self) -> None:
        """List the installed encoders and "from scratch", keeping the choice."""
        chosen = self._parameterNode.encoder
        self._encoders = [("none", _("Nothing (from scratch)")), *self.logic.encoders()]
        selector = self.ui.encoderSelector
        wasBlocked = selector.blockSignals(True)
        selector.clear()
        selector.addItems([label for _name, label in self._encoders])
        names = [name for name, _label in self._encoders]
        # An encoder is a better start than none, unless the user has chosen otherwise.
        selector.setCurrentIndex(names.index(chosen) if chosen in names else min(1, len(names) - 1))
        selector.blockSignals(wasBlocked)
        self.onEncoderSelected()

    def onEncoderSelected(self, text: str | None = None) -> None:
        """Remember the chosen encoder; only from scratch there is a network to choose."""
        index = self.ui.encoderSelector.currentIndex
        name = self._encoders[index][0] if 0 <= index < len(self._encoders) else "none"
        self.ui.networkSelector.enabled = name == "none"
        if self._parameterNode:
            self._parameterNode.encoder = name

    def onAddCaseButton(self, clicked: bool = False) -> None:
        """Add the chosen pair to the table."""
        parameters = self._parameterNode
        pair = (parameters.currentVolume, parameters.currentSegmentation)
        cases = [case for case in parameters.cases() if case[0] is not pair[0]]
        parameters.setCases([*cases, pair])

    def onRemoveCaseButton(self, clicked: bool = False) -> None:
        """Take the selected cases out of the table."""
        rows = {item.row() for item in self.ui.caseTable.selectedItems()}
        cases = self._parameterNode.cases()
        self._parameterNode.setCases([case for row, case in enumerate(cases) if row not in rows])

    def updateCaseTable(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Show the cases, when they or their names have changed."""
        cases = self._parameterNode.cases() if self._parameterNode else []
        shown = [(volume.GetName(), segmentation.GetName(), ", ".join(self.logic.segmentNames(segmentation)))
                 for volume, segmentation in cases]
        if shown != self._cases:
            self._cases = shown
            self.ui.caseTable.clearSelection()
            self.ui.caseTable.setRowCount(len(shown))
            for row, texts in enumerate(shown):
                for column, text in enumerate(texts):
                    item = qt.QTableWidgetItem(text)
                    item.setToolTip(text)
                    self.ui.caseTable.setItem(row, column, item)
        self._checkCanApply()

    def onFinetuneButton(self, clicked: bool = False) -> None:
        """Start, or ask what was started to stop."""
        if self._job is not None:
            self._job.stop()
            self.ui.statusLabel.text = _("Stopping after this step...")
            return
        if self._isStarting:  # pressed again while the cases are handed over
            self.logic.cancelHandOver()
            return
        self._isStarting = True
        self._checkCanApply()
        try:
            with (slicer.util.tryWithErrorDisplay(_("Training could not be started."), waitCursor=True),
                  contextlib.suppress(RunCancelled)):
                self.followJob(self._start(self._parameterNode))
        finally:
            self._isStarting = False
            if self._job is None:
                self.ui.progressBar.visible, self.ui.statusLabel.text = False, ""
            self._checkCanApply()

    def followJob(self, job) -> None:  # noqa: ANN001 - TrainingJob
        """Show a run in the panel."""
        self._job = job
        job.progressed.connect(lambda fraction, message: self._onProgress(fraction, message, job))
        job.finished.connect(self._onFinished)
        self._onProgress(job.fraction, job.message or _("Training {name}").format(name=job.modelName))
        self._checkCanApply()

    def _start(self, parameters: MedMAETrainParameterNode):  # noqa: ANN202 - TrainingJob
        method, _space, preset = parameters.network.value.partition(" ")
        isNew = parameters.encoder == "none"
        return self.logic.finetune(
            parameters.cases(), parameters.encoder, parameters.modelName or None,
            method=method if isNew and method else None, preset=preset if isNew and preset else None,
            modality=parameters.modality.value or None, steps=parameters.steps or None,
            device=parameters.device.value, allowMissing=parameters.allowMissing,
            progressCallback=self._onHandingOver)

    def _onHandingOver(self, fraction: float, message: str) -> None:
        if self._isStarting:  # afterwards the job itself tells
            self._onProgress(fraction, message)

    def _onProgress(self, fraction: float, message: str, job=None) -> None:  # noqa: ANN001 - TrainingJob
        if job is not self._job and job is not None:  # another run, which is not the one shown
            return
        self.ui.progressBar.visible = True
        self.ui.progressBar.setValue(round(1000 * fraction))
        self.ui.statusLabel.text = message

    def _onFinished(self, job) -> None:  # noqa: ANN001 - TrainingJob
        if job is self._job:
            self._job = None
            self.ui.progressBar.visible = False
            if self.logic.jobs:  # others were going on beside it
                self.followJob(self.logic.jobs[-1])
        if job.error is None:
            self.ui.statusLabel.text = _("The model {name} is ready in MedMAE Segment.").format(name=job.result)
        elif isinstance(job.error, RunCancelled):
            text = _("Stopped. What was learned so far is kept in {folder}.")
            self.ui.statusLabel.text = text.format(folder=job.run.path)
        else:
            self.ui.statusLabel.text = str(job.error)
            slicer.util.errorDisplay(_("Training failed.") + "\n\n" + str(job.error),
                                     textFormat=qt.Qt.PlainText)
        self._checkCanApply()

    def _checkCanApply(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        parameters, button = self._parameterNode, self.ui.finetuneButton
        hasPair = bool(parameters and parameters.currentVolume and parameters.currentSegmentation)
        self.ui.addCaseButton.enabled = hasPair
        self.ui.removeCaseButton.enabled = len(self.ui.caseTable.selectedItems()) > 0
        button.text = _("Stop") if self._isStarting or self._job is not None else _("Finetune")
        if self._isStarting:
            button.toolTip, button.enabled = _("Do not start training."), True
        elif self._job is not None:
            button.toolTip, button.enabled = _("Stop after this step; what was learned so far is kept."), True
        elif parameters and parameters.cases():
            button.toolTip, button.enabled = _("Train a model on the cases in the table."), True
        else:
            button.toolTip, button.enabled = _("Add annotated cases first."), False


#
# MedMAETrainLogic
#


class MedMAETrainLogic(TrainLogic, ScriptedLoadableModuleLogic):
    """The module's computation; everything but the parameter node is in `MedMAETrainLib.TrainLogic`."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        TrainLogic.__init__(self)

    def getParameterNode(self) -> MedMAETrainParameterNode:
        """The scene's parameter node of this module."""
        return MedMAETrainParameterNode(super().getParameterNode())


#
# MedMAETrainTest
#


class MedMAETrainTest(ScriptedLoadableModuleTest):
    """A check inside Slicer; the full tests are in Testing/slicer and need no Slicer application."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run everything."""
        self.setUp()
        self.test_aCaseWithoutSegmentsIsExplained()

    def test_aCaseWithoutSegmentsIsExplained(self) -> None:
        """Unusable cases are refused before anything starts."""
        import numpy as np

        volumeNode = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        with self.assertRaisesRegex(ValueError, "has no segments"):
            MedMAETrainLogic().finetune([(volumeNode, segmentationNode)])
        self.delayDisplay("Test passed")
