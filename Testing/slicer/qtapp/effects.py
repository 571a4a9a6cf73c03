"""The Segment Editor around a scripted effect: loads it by its file, keeps its parameters, saves its undo states."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import slicer

EFFECTS = "Modules/Loadable/Segmentations/EditorEffects/Python/SegmentEditorEffects"


def install(slicerPythonSource: str | None) -> None:
    """Make `SegmentEditorEffects` and `qSlicerSegmentationsEditorEffectsPythonQt` importable, and an effect factory."""
    package = ModuleType("SegmentEditorEffects")
    package.AbstractScriptedSegmentEditorEffect = _baseClass(slicerPythonSource)
    sys.modules["SegmentEditorEffects"] = package
    bindings = ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    bindings.qSlicerSegmentEditorScriptedEffect = ScriptedEffect
    sys.modules["qSlicerSegmentationsEditorEffectsPythonQt"] = bindings
    factory = SimpleNamespace(effects=[])
    factory.registerEffect = factory.effects.append
    slicer.qSlicerSegmentEditorEffectFactory = SimpleNamespace(instance=lambda: factory)


def _baseClass(slicerPythonSource: str | None) -> type:
    """Slicer's own base class of effects where the whole checkout is there, else one that does what it does here."""
    source = Path(slicerPythonSource).resolve() if slicerPythonSource else None
    for root in (source, *source.parents) if source else ():
        file = root / EFFECTS / "AbstractScriptedSegmentEditorEffect.py"
        if file.is_file():
            spec = importlib.util.spec_from_file_location("AbstractScriptedSegmentEditorEffect", file)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module.AbstractScriptedSegmentEditorEffect
    return _Base


class _Base:
    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)


class ScriptedEffect:
    """What an effect reaches of the Segment Editor; the logic behind it is the real one."""

    def __init__(self, parent=None):
        import qt

        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.frame = qt.QWidget()
        self.frame.setLayout(qt.QFormLayout())
        self.currentSegmentIsVisible = True

    def setPythonSource(self, path):
        """Finds the class as the application does: by the names of the file and of its folder."""
        file = Path(path)
        module = sys.modules.get(file.parent.name)
        if not hasattr(module, file.stem):
            spec = importlib.util.spec_from_file_location(file.parent.name, file)
            module = importlib.util.module_from_spec(spec)
            sys.modules[file.parent.name] = module
            spec.loader.exec_module(module)
        self._self = getattr(module, file.stem)(self)

    def self(self):
        return self._self

    def edit(self, editorNode):
        """Show the effect in an editor, as choosing it does."""
        self.logic.SetSegmentEditorNode(editorNode)
        self._self.setupOptionsFrame()
        self._self.setMRMLDefaults()
        self._self.activate()
        self.frame.show()

    def parameterSetNode(self):
        return self.logic.GetSegmentEditorNode()

    def saveStateForUndo(self):
        self.logic.SaveStateForUndo()

    def confirmCurrentSegmentVisible(self):
        return self.currentSegmentIsVisible

    def parameter(self, name):
        return self.parameterSetNode().GetAttribute(f"{self.name}.{name}") or ""

    def setParameter(self, name, value):
        self.parameterSetNode().SetAttribute(f"{self.name}.{name}", value)

    def setParameterDefault(self, name, value):
        if self.parameterSetNode().GetAttribute(f"{self.name}.{name}") is None:
            self.setParameter(name, value)

    def addLabeledOptionsWidget(self, label, widget):
        self.frame.layout().addRow(label, widget)

    def addOptionsWidget(self, widget):
        self.frame.layout().addRow(widget)
