"""MedMAESegment: segment the volume in the scene with a MedMAE model, then correct it in the Segment Editor."""

from __future__ import annotations

import contextlib
import time

import slicer
import vtk
from MedMAESegmentLib.Application import firstNode
from MedMAESegmentLib.Device import Device
from MedMAESegmentLib.FollowedJob import RunCancelled, duration
from MedMAESegmentLib.PythonPanel import PythonPanel
from MedMAESegmentLib.SampleCases import registerSampleData
from MedMAESegmentLib.SegmentLogic import SegmentLogic
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLVectorVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

#
# MedMAESegment
#


class MedMAESegment(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent) -> None:  # noqa: ANN001 - qSlicerScriptedLoadableModule
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMAE Segment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations"]
        parent.contributors = ["MedMAE contributors"]
        parent.helpText = _("""
Segments the structures that a model was trained for. Choose a volume and a model, press Segment, correct the result in
the Segment Editor. Models come from MedMAE Train, from colleagues, or from the command line. Not for clinical use.
""")
        parent.acknowledgementText = _("""
Implements the methods VIS-MAE and GL-MAE; every model names the data and the work that it is made from.
""")
        # Sample Data may be loaded after this module.
        slicer.app.connect("startupCompleted()", registerSampleData)


#
# MedMAESegmentParameterNode
#


@parameterNodeWrapper
class MedMAESegmentParameterNode:
    """What is chosen in the panel, saved with the scene.

    inputVolume - The image to segment.
    segmentation - Where the result goes; none: a new one.
    model - Name of the model in the list of models.
    device - Where to compute.
    """

    inputVolume: vtkMRMLScalarVolumeNode | vtkMRMLVectorVolumeNode | None
    segmentation: vtkMRMLSegmentationNode
    model: str = ""
    device: Device = Device.AUTO


#
# MedMAESegmentWidget
#


class MedMAESegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: what is chosen, one button that starts and cancels, how far it is."""

    def __init__(self, parent=None) -> None:  # noqa: ANN001 - qMRMLWidget
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._models = {}
        self._inputVolume = None
        self._job = None
        self._isStarting = False
        self._startTime = 0.0

    def setup(self) -> None:
        """Build the panel when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedMAESegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedMAESegmentLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.ui.modelSelector.currentTextChanged.connect(self.onModelSelected)
        self.ui.segmentButton.clicked.connect(self.onSegmentButton)
        self.ui.editButton.clicked.connect(self.onEditButton)
        self.ui.progressBar.visible = False
        self._pythonPanel = PythonPanel(self.ui, isIdle=lambda: not self.logic.jobs)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """End what is under way when the module is closed."""
        if self.logic is not None:
            self.logic.cancel()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Connect to the scene and look for new models each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Leave the scene alone while another module is open."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """End what is under way: its volume is about to go."""
        self.logic.cancel()
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
        """Connect the panel to the scene's parameter node, with the first volume and the first model as defaults."""
        self.setParameterNode(None)
        parameterNode = self.logic.getParameterNode()
        if not parameterNode.inputVolume:
            parameterNode.inputVolume = firstNode("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")
        self.setParameterNode(parameterNode)
        self.updateModels()

    def setParameterNode(self, inputParameterNode: MedMAESegmentParameterNode | None) -> None:
        """Connect the panel to a parameter node, or disconnect it."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
        self._parameterNode = inputParameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self._inputVolume = self._parameterNode.inputVolume
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._onParametersModified)
            self._checkCanApply()

    def updateModels(self) -> None:
        """List the installed segmentation models, keeping the choice."""
        chosen = self._parameterNode.model
        self._models = self.logic.models()
        selector = self.ui.modelSelector
        wasBlocked = selector.blockSignals(True)
        selector.clear()
        selector.addItems(list(self._models))
        selector.setCurrentIndex(list(self._models).index(chosen) if chosen in self._models else 0)
        selector.blockSignals(wasBlocked)
        self.onModelSelected()

    def onModelSelected(self, name: str | None = None) -> None:
        """Remember the chosen model and say what it is for."""
        name = self.ui.modelSelector.currentText
        info = self._models.get(name)
        self.ui.modelDescriptionLabel.text = self.logic.describeModel(info) if info else _(
            "No models yet. Train one with MedMAE Train.")
        if self._parameterNode:
            self._parameterNode.model = name
            self._checkCanApply()

    def onSegmentButton(self, clicked: bool = False) -> None:
        """Start, or cancel what was started."""
        if self._job is not None:
            self._job.cancel()
            return
        if self._isStarting:  # pressed again while the volume is handed over
            self.logic.cancel()
            return
        if not self._mayReplaceSegments(self._parameterNode):
            return
        self._isStarting, self._startTime = True, time.monotonic()
        self._checkCanApply()
        try:
            with (slicer.util.tryWithErrorDisplay(_("The volume could not be segmented."), waitCursor=True),
                  contextlib.suppress(RunCancelled)):
                self._start(self._parameterNode)
        finally:
            self._isStarting = False
            if self._job is None:
                self.ui.progressBar.visible, self.ui.statusLabel.text = False, ""
            self._checkCanApply()

    def onEditButton(self, clicked: bool = False) -> None:
        """Open the result in the Segment Editor."""
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = slicer.mrmlScene.AddNode(node)
        self.logic.editSegmentation(self._parameterNode.segmentation, node)
        slicer.util.selectModule("SegmentEditor")

    def _mayReplaceSegments(self, parameters: MedMAESegmentParameterNode) -> bool:
        """Ask before segments are replaced, which the user may have corrected."""
        info = self._models.get(parameters.model)
        names = self.logic.replacedSegments(parameters.segmentation, info) if info else []
        text = _("The segments {names} in {segmentation} will be replaced.")
        return not names or slicer.util.confirmOkCancelDisplay(
            text.format(names=", ".join(names), segmentation=parameters.segmentation.GetName()))

    def _start(self, parameters: MedMAESegmentParameterNode) -> None:
        job = self.logic.segment(parameters.inputVolume, parameters.model, parameters.segmentation,
                                 device=parameters.device.value, replaceExisting=True,  # the user was asked
                                 progressCallback=self._onProgress, waitForCompletion=False)
        self._job = job
        job.finished.connect(self._onFinished)

    def _onProgress(self, fraction: float, message: str) -> None:
        self.ui.progressBar.visible = True
        self.ui.progressBar.setValue(round(1000 * fraction))
        self.ui.statusLabel.text = message

    def _onFinished(self, job) -> None:  # noqa: ANN001 - SegmentationJob
        self._job = None
        self.ui.progressBar.visible = False
        if job.error is None:
            self.ui.statusLabel.text = _("Done in {time}.").format(time=duration(time.monotonic() - self._startTime))
            # Another module may be open by now, with the panel disconnected.
            self.logic.getParameterNode().segmentation = job.result
        elif isinstance(job.error, RunCancelled):
            self.ui.statusLabel.text = _("Cancelled.")
        else:
            self.ui.statusLabel.text = str(job.error)
            slicer.util.errorDisplay(_("The volume could not be segmented.") + "\n\n" + str(job.error))
        self._checkCanApply()

    def _onParametersModified(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        parameters = self._parameterNode
        if parameters.inputVolume is not self._inputVolume:
            self._inputVolume = parameters.inputVolume
            if self.logic.isResultOfAnother(parameters.segmentation, parameters.inputVolume):
                parameters.segmentation = None  # the next volume's result must not go into this one's
        self._checkCanApply()

    def _checkCanApply(self) -> None:
        parameters, button = self._parameterNode, self.ui.segmentButton
        isBusy = self._isStarting or self._job is not None
        button.text = _("Cancel") if isBusy else _("Segment")
        if isBusy:
            button.toolTip, button.enabled = _("End the computation at once."), True
        elif parameters and parameters.inputVolume and parameters.model:
            button.toolTip, button.enabled = _("Segment the volume with the model."), True
        else:
            button.toolTip, button.enabled = _("Choose a volume and a model."), False
        segmentation = parameters.segmentation if parameters else None
        self.ui.show3DButton.setSegmentationNode(segmentation)
        self.ui.show3DButton.enabled = self.ui.editButton.enabled = segmentation is not None


#
# MedMAESegmentLogic
#


class MedMAESegmentLogic(SegmentLogic, ScriptedLoadableModuleLogic):
    """The module's computation; everything but the parameter node is in `MedMAESegmentLib.SegmentLogic`."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        SegmentLogic.__init__(self)

    def getParameterNode(self) -> MedMAESegmentParameterNode:
        """The scene's parameter node of this module."""
        return MedMAESegmentParameterNode(super().getParameterNode())


#
# MedMAESegmentTest
#


class MedMAESegmentTest(ScriptedLoadableModuleTest):
    """A check inside Slicer; the full tests are in Testing/slicer and need no Slicer application."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run everything."""
        self.setUp()
        self.test_anUnknownModelIsExplained()

    def test_anUnknownModelIsExplained(self) -> None:
        """Asking for a model that is not there names those that are."""
        import numpy as np

        from medmae.errors import BadInput

        volumeNode = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
        with self.assertRaisesRegex(BadInput, "There is no model"):
            MedMAESegmentLogic().segment(volumeNode, "a model that nobody has")
        self.delayDisplay("Test passed")
