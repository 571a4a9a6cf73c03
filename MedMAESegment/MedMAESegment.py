"""MedMAESegment: segment the volume in the scene with a MedMAE model, then correct it in the Segment Editor."""

from __future__ import annotations

from typing import Annotated

import slicer
import vtk
from MedMAESegmentLib.Application import firstNode
from MedMAESegmentLib.Device import Device
from MedMAESegmentLib.Panel.BatchPage import BatchPage
from MedMAESegmentLib.Panel.Choices import Choices
from MedMAESegmentLib.Panel.ComputeSelector import ComputeSelector
from MedMAESegmentLib.Panel.ModelSection import ModelSection
from MedMAESegmentLib.Panel.OptionsSection import OptionsSection
from MedMAESegmentLib.Panel.RemoteConsent import RemoteConsent
from MedMAESegmentLib.Panel.VolumePage import VolumePage
from MedMAESegmentLib.PythonPanel import PythonPanel
from MedMAESegmentLib.SampleCases import registerSampleData
from MedMAESegmentLib.SegmentLogic import SegmentLogic
from MedMAESegmentLib.SelfTest import segmentEndToEnd, whatIsMissing
from slicer import (
    vtkMRMLMarkupsROINode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLVectorVolumeNode,
    vtkMRMLVolumeNode,
)
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
# MedMAESegment
#


class MedMAESegment(ScriptedLoadableModule):
    """What Slicer shows about the module."""

    def __init__(self, parent) -> None:  # noqa: ANN001 - qSlicerScriptedLoadableModule
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMAE Segment")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Markups", "Segmentations"]
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

    inputVolume - The image to segment; of a model with several channels, that of the first.
    otherVolumes - The images of the other channels.
    roi - The region to segment; none: the whole volume.
    segmentation - Where the result goes; none: a new one.
    model - Name of the model in the list of models.
    computeOn - "auto", "cpu", "cuda:0" or "target:NAME".
    mirror, uncertainty, largestComponent - See SegmentLogic.segment.
    smooth, smoothingFactor - Whether surfaces are made, and how smooth they are.
    replaceExisting - Whether segments of the same name are replaced.
    batchSource, batchFolder, batchOutputFolder - Which images a batch takes, and where its results go.
    """

    inputVolume: vtkMRMLScalarVolumeNode | vtkMRMLVectorVolumeNode | None
    otherVolumes: list[vtkMRMLVolumeNode]
    roi: vtkMRMLMarkupsROINode
    segmentation: vtkMRMLSegmentationNode
    model: str = ""
    computeOn: str = Device.AUTO.value
    mirror: bool = False
    uncertainty: bool = False
    largestComponent: bool = False
    smooth: bool = False
    smoothingFactor: Annotated[float, WithinRange(0, 1)] = 0.5
    replaceExisting: bool = False
    batchSource: str = ""
    batchFolder: str = ""
    batchOutputFolder: str = ""


#
# MedMAESegmentWidget
#


class MedMAESegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: brings its parts together with the scene; each part is in `MedMAESegmentLib.Panel`."""

    def __init__(self, parent=None) -> None:  # noqa: ANN001 - qMRMLWidget
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        """Build the panel when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedMAESegment.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedMAESegmentLogic()
        self._consent = RemoteConsent()
        self._modelSection = ModelSection(self.ui.modelCollapsibleButton, self.logic)
        self._computeSelector = ComputeSelector(self.ui.computeSelector)
        self._options = OptionsSection(self.ui)
        self._volumePage = VolumePage(self.ui, self.logic, self.choices, self._consent)
        self._batchPage = BatchPage(self.ui.batchContent, self.logic, self.choices, self._consent)
        self._pythonPanel = PythonPanel(self.ui.pythonCollapsibleButton, isIdle=self.isIdle)
        self._modelSection.isIdle = self.isIdle
        self._modelSection.chosen.connect(self.onModelChosen)
        self._computeSelector.changed.connect(self.onComputeOnChosen)
        self.ui.pages.currentChanged.connect(self.onPageChosen)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.onPageChosen(self.ui.pages.currentIndex)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """End what is under way when the module is closed."""
        if self.logic is not None:
            self.endEverything()
            self._batchPage.cleanup()
        self.removeObservers()

    def enter(self) -> None:
        """Connect to the scene and look for new models each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Leave the scene alone while another module is open."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """End what is under way: its volumes are about to go."""
        self.endEverything()
        self._consent.forget()

    def onSceneEndClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Start again with the empty scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Show the choices that came with a scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def endEverything(self) -> None:
        """Disconnect from the scene and end every computation."""
        self.setParameterNode(None)
        self._volumePage.cancel()
        self._batchPage.cancel()
        self.logic.cancel()

    def isIdle(self) -> bool:
        """Whether no computation is under way."""
        return not (self._volumePage.isBusy or self._batchPage.isBusy or self.logic.jobs)

    def initializeParameterNode(self) -> None:
        """Connect the panel to the scene's parameter node, with the first volume and the first model as defaults."""
        self.setParameterNode(None)
        self._pythonPanel.update()
        parameterNode = self.logic.getParameterNode()
        if not parameterNode.inputVolume:
            parameterNode.inputVolume = firstNode("vtkMRMLScalarVolumeNode", "vtkMRMLVectorVolumeNode")
        if parameterNode.model:
            self._modelSection.name = parameterNode.model
        self._modelSection.update()
        parameterNode.model = self._modelSection.name
        self._computeSelector.update()
        self._computeSelector.value = parameterNode.computeOn
        parameterNode.computeOn = self._computeSelector.value
        self.setParameterNode(parameterNode)

    def setParameterNode(self, inputParameterNode: MedMAESegmentParameterNode | None) -> None:
        """Connect the panel to a parameter node, or disconnect it."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.update)
        self._parameterNode = inputParameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.update)
        self._volumePage.setParameters(inputParameterNode)
        self.update()

    def choices(self) -> Choices:
        """What is chosen for both pages."""
        if self._parameterNode is None:
            return Choices("", None)
        return Choices.of(self._parameterNode, self._modelSection.info)

    def update(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Show what is chosen now."""
        self._options.update(self.choices(), self._computeSelector.note)
        self._volumePage.update()
        self._batchPage.update()

    def onModelChosen(self, name: str) -> None:
        """Remember the model; also called when it is the same but was updated."""
        if self._parameterNode:
            self._parameterNode.model = name
            self.update()

    def onComputeOnChosen(self) -> None:
        """Remember where to compute."""
        if self._parameterNode:
            self._parameterNode.computeOn = self._computeSelector.value

    def onPageChosen(self, index: int) -> None:
        """Let the page that is shown alone decide how high the tabs are."""
        self.ui.volumeContent.visible = index == 0
        self.ui.batchContent.visible = index == 1


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
        self.setUp()
        self.test_anObliqueVolumeIsSegmented()

    def test_anUnknownModelIsExplained(self) -> None:
        """Asking for a model that is not there names those that are."""
        import numpy as np

        from medmae.errors import BadInput

        volumeNode = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6), np.int16))
        with self.assertRaisesRegex(BadInput, "There is no model"):
            MedMAESegmentLogic().segment(volumeNode, "a model that nobody has")
        self.delayDisplay("Test passed")

    def test_anObliqueVolumeIsSegmented(self) -> None:
        """From the volume to the segmentation by a tiny model, where the packages for computing are there."""
        missing = whatIsMissing()
        if missing:
            self.delayDisplay(f"Not tested, because nothing can be computed without {missing}")
            return
        segmentEndToEnd(self, MedMAESegmentLogic())
        self.delayDisplay("Test passed")
