"""Base classes of a scripted module: its description, its panel, its logic with the parameter node, its self-test."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import qt
import slicer


class ScriptedLoadableModule:
    """What Slicer shows about a module; `parent` is filled in."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.helpText, parent.acknowledgementText = "", "", ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        icons = Path(parent.path).parent / "Resources" / "Icons"
        for icon in (icons / f"{self.moduleName}{ending}" for ending in (".svg", ".png")):
            if icon.is_file():
                parent.icon = qt.QIcon(str(icon))
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        """A file in the module's folder Resources."""
        return _resource(self.parent.path, filename)

    def runTest(self, msec=100, **options):
        """Run the module's self-test."""
        test = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        test.messageDelay = msec
        test.runTest(**options)


class ScriptedLoadableModuleWidget:
    """The panel of a module in the widget that Slicer gives it; the developer's section is not shown."""

    def __init__(self, parent):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def setup(self):
        pass

    def cleanup(self):
        pass

    def resourcePath(self, filename):
        """A file in the module's folder Resources."""
        return _resource(slicer.util.modulePath(self.moduleName), filename)

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """The computation of a module; the scene has one parameter node of it."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        """The scene's parameter node of this module, made when there is none."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        if node.GetAttribute("ModuleName") != self.moduleName:  # closing the scene has taken it away
            node.SetAttribute("ModuleName", self.moduleName)
        return node

    def createParameterNode(self):
        """A parameter node of this module that is not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)  # what CreateNodeByClass gives has a reference more than Python knows of
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The self-test of a module."""

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        """Show a message for some milliseconds."""
        chosen = (getattr(self, "messageDelay", None), msec, requestedDelay, 100)
        slicer.util.delayDisplay(message, next(delay for delay in chosen if delay is not None))

    def runTest(self):
        """Run every method that has "test" in its name."""
        self.setUpClass()
        for name in dir(self):
            if "test" in name and callable(getattr(self, name)):
                self.setUp()
                getattr(self, name)()
                self.tearDown()
        self.tearDownClass()


def _resource(modulePath, filename):
    return str(Path(modulePath).parent / "Resources" / filename)
