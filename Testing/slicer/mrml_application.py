"""The real MRML library with its logics, as the Slicer application sets them up, but without the application."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import slicer
import slicer.util  # noqa: F401 - the application imports it for everybody

LOGICS = {  # in this order: the others ask the color logic for their tables
    "Colors": "vtkMRMLColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
}


class MrmlApplication:
    """One scene and its logics; `slicer.mrmlScene`, `slicer.app` and `slicer.modules` point to them."""

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.logics = {}  # the application logic keeps weak pointers only
        for name, className in LOGICS.items():
            logic = getattr(slicer, className)()
            logic.SetMRMLScene(self.scene)
            logic.SetMRMLApplicationLogic(self.logic)
            self.logic.SetModuleLogic(name, logic)
            self.logics[name] = logic
        self.logics["Colors"].AddDefaultColorNodes()
        self.temporaryFolder = tempfile.mkdtemp(prefix="slicer-test-")
        self.pumped = 0
        slicer.mrmlScene = self.scene
        slicer.app = SimpleNamespace(
            applicationLogic=lambda: self.logic, temporaryPath=self.temporaryFolder, processEvents=self._pump,
            testingEnabled=lambda: True)
        slicer.modules = SimpleNamespace(
            **{name.lower(): SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self.logics.items()})

    def _pump(self) -> None:
        self.pumped += 1

    def clear(self) -> None:
        """An empty scene, as File / Close scene leaves it."""
        self.scene.Clear(0)

    def leftovers(self) -> list[str]:
        """What is in the application's temporary folder."""
        return sorted(path.name for path in Path(self.temporaryFolder).iterdir())
