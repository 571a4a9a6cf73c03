"""MedMAETrain: from a few annotated cases to a model, without leaving Slicer."""

from __future__ import annotations

import slicer
from MedMAESegmentLib.PythonPanel import PythonPanel
from MedMAESegmentLib.WorkerSession import applicationWorker
from MedMAETrainLib.Panel.CasesPage import CasesPage
from MedMAETrainLib.Panel.NextPage import NextPage
from MedMAETrainLib.Panel.ProjectSection import ProjectSection
from MedMAETrainLib.Panel.RunsPage import RunsPage
from MedMAETrainLib.Panel.TrainPage import TrainPage
from MedMAETrainLib.TrainLogic import TrainLogic
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

CASES, TRAIN, RUNS, NEXT = range(4)  # the pages, from left to right

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
Makes a model from a handful of annotated cases. Collect images and segmentations in a project, train, and correct
what the model draws on the next case. Computations go on when Slicer is closed; finished models appear in MedMAE
Segment.
""")
        parent.acknowledgementText = _("""
Implements the methods VIS-MAE and GL-MAE; every model names the data and the work that it is made from.
""")


#
# MedMAETrainParameterNode
#


@parameterNodeWrapper
class MedMAETrainParameterNode:
    """What is chosen in the panel, saved with the scene.

    projectFolder - Of the project that is open; empty: none.
    page - Which of the pages is shown.
    task - "segmentation", "classification" or "pretraining".
    startFrom - What training starts from: name or path of an encoder or model; "none": from scratch; "": not chosen.
    method, preset - Of the network, when it is trained from scratch; empty: what suits the images.
    modelName - Of the finished model; empty: made from the names of the labels.
    computeOn - "auto", "cpu", "cuda:0" or "target:NAME".
    settings - Those of the recommended settings that were edited, as JSON.
    strategy - How the next case is chosen: "entropy" or "random".
    """

    projectFolder: str = ""
    page: int = CASES
    task: str = "segmentation"
    startFrom: str = ""
    method: str = ""
    preset: str = ""
    modelName: str = ""
    computeOn: str = "auto"
    settings: str = ""
    strategy: str = "entropy"


#
# MedMAETrainWidget
#


class MedMAETrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: brings its parts together with the scene; each part is in `MedMAETrainLib.Panel`."""

    def __init__(self, parent=None) -> None:  # noqa: ANN001 - qMRMLWidget
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None

    def setup(self) -> None:
        """Build the panel when the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedMAETrain.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MedMAETrainLogic()
        self.projectSection = ProjectSection(self.ui.projectCollapsibleButton, self.logic)
        self.casesPage = CasesPage(self.ui.casesContent, self.logic, self.project)
        self.trainPage = TrainPage(self.ui.trainContent, self.logic, self.project)
        self.runsPage = RunsPage(self.ui.runsContent, self.logic, self.project)
        self.nextPage = NextPage(self.ui.nextContent, self.logic, self.project)
        self._pages = (self.casesPage, self.trainPage, self.runsPage, self.nextPage)
        self._pythonPanel = PythonPanel(self.ui.pythonCollapsibleButton, isIdle=lambda: not applicationWorker().isBusy)
        self._connectPages()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.onPageChosen(self.ui.pages.currentIndex)
        self.initializeParameterNode()
        self.logic.findRunning()

    def cleanup(self) -> None:
        """Stop following when the module is closed; runs go on."""
        if self.logic is not None:
            for page in self._pages:
                page.cleanup()
            self.projectSection.cleanup()
            self.logic.cancelHandOver()
            for job in self.logic.jobs:
                job.stopFollowing()
            self.logic.closeProjects()
        self._parameterNode = None
        self.removeObservers()

    def enter(self) -> None:
        """Connect to the scene and show what is there now each time the module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Leave the scene alone while another module is open."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Let go of the scene; the project stays open."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Start again with the empty scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller=None, event=None) -> None:  # noqa: ANN001 - VTK observer
        """Show the project and the choices that came with a scene when the module is open."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def project(self):  # noqa: ANN201 - Project | None
        """The project that is open."""
        return self.projectSection.project

    def initializeParameterNode(self) -> None:
        """Connect the panel to the scene's parameter node. A scene that names no project takes the one that is open."""
        self._pythonPanel.update()
        parameterNode = self.logic.getParameterNode()
        if parameterNode.projectFolder:
            self.projectSection.folder = parameterNode.projectFolder
        self.setParameterNode(parameterNode)

    def setParameterNode(self, inputParameterNode: MedMAETrainParameterNode | None) -> None:
        """Connect the panel to a parameter node, or disconnect it."""
        self._parameterNode = inputParameterNode
        if inputParameterNode is not None:
            self._keepFolder()
            self.ui.pages.setCurrentIndex(inputParameterNode.page)
        for page in self._pages:
            page.setParameters(inputParameterNode)

    def onProjectChanged(self) -> None:
        """Show another project, or what has changed in it."""
        self._keepFolder()
        for page in self._pages:
            page.update()

    def onPageChosen(self, index: int) -> None:
        """Let the page that is shown alone decide how high the tabs are."""
        contents = (self.ui.casesContent, self.ui.trainContent, self.ui.runsContent, self.ui.nextContent)
        for number, content in enumerate(contents):
            content.visible = number == index
        if self._parameterNode is not None:
            self._parameterNode.page = index
        self._pages[index].update()

    def onOpenCase(self, caseId: str) -> None:
        """Open a case that was asked for on another page; why it cannot be opened stands on that of the cases."""
        if not self.casesPage.open(caseId):
            self.ui.pages.setCurrentIndex(CASES)

    def onStarted(self, job) -> None:  # noqa: ANN001 - TrainingJob
        """Show a run that was just started."""
        self.ui.pages.setCurrentIndex(RUNS)
        self.runsPage.show(job)

    def onFinetuneFrom(self, name: str) -> None:
        """Go on from a model."""
        self.ui.pages.setCurrentIndex(TRAIN)
        self.trainPage.startFrom(name)

    def onUseModel(self, name: str) -> None:
        """Open MedMAE Segment with a model."""
        slicer.util.getModuleLogic("MedMAESegment").getParameterNode().model = name
        slicer.util.selectModule("MedMAESegment")

    def _connectPages(self) -> None:
        self.ui.pages.currentChanged.connect(self.onPageChosen)
        self.projectSection.changed.connect(self.onProjectChanged)
        self.trainPage.started.connect(self.onStarted)
        self.runsPage.openCase.connect(self.onOpenCase)
        self.runsPage.useModel.connect(self.onUseModel)
        self.nextPage.openCase.connect(lambda caseId, _model=None: self.onOpenCase(caseId))
        self.nextPage.finetuneFrom.connect(self.onFinetuneFrom)

    def _keepFolder(self) -> None:
        """Remember with the scene which project is open; one that could not be opened stays what the scene names."""
        if self._parameterNode is not None and not self.projectSection.problem:
            self._parameterNode.projectFolder = self.projectSection.folder


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
