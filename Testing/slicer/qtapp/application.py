"""Open a module panel over the stand-in widgets, with Slicer's own Python sources or with the stand-ins for them."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import slicer

from qtapp import pythonqt, widgets

ROOT = Path(__file__).resolve().parents[3]
STAND_INS = Path(__file__).with_name("base_python")


class PanelApplication:
    """What the module code reaches through `qt`, `ctk`, `slicer.app` and `slicer.modules`.

    Parameter nodes, module base classes and translation come from a checkout of Slicer or of its Base/Python; without
    one from the stand-ins in base_python.
    """

    def __init__(self, slicerPythonSource: str | None = None) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        qt = pythonqt.makeQtModule()
        self.qt = qt
        self.application = qt.QApplication.instance() or qt.QApplication(["MedMAE"])
        self.application.setStyle("Fusion")
        self.application.setFont(qt.QFont("DejaVu Sans", 9))
        sys.modules["qt"] = qt
        sys.modules["ctk"] = _StandIns("ctk")
        slicer.__path__.append(str(packageOf(Path(slicerPythonSource or STAND_INS))))
        for widget in widgets.ALL:
            setattr(slicer, widget.__name__, widget)
        for name in ("qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLRangeWidget", "qMRMLCheckableNodeComboBox",
                     "qSlicerScriptedLoadableModule"):
            setattr(slicer, name, type(name, (), {}))
        self.completeSlicerApp()
        self.selectedModule = None
        slicer.util.selectModule = self._selectModule

    def completeSlicerApp(self) -> None:
        """Give `slicer.app` what the panels use; again after another test has changed it."""
        app = slicer.app
        app.applicationName = "3D Slicer"
        app.processEvents = self.application.processEvents
        app.setOverrideCursor = self.application.setOverrideCursor
        app.restoreOverrideCursor = self.application.restoreOverrideCursor
        app.connect = lambda _signal, _callback: None
        app.translate = lambda _context, text: text
        app.moduleManager = lambda: SimpleNamespace(connect=lambda *_: None, disconnect=lambda *_: None)
        app.layoutManager = lambda: None

    def _selectModule(self, name: str) -> None:
        self.selectedModule = name

    def open(self, name: str):
        """Load a module as Slicer does and enter it; returns its widget object."""
        source = ROOT / name / f"{name}.py"
        python = importlib.import_module(name)
        descriptor = SimpleNamespace(path=str(source))
        getattr(python, name)(descriptor)
        setattr(slicer.modules, name.lower(), descriptor)
        parent = widgets.qMRMLWidget()
        parent.setLayout(self.qt.QVBoxLayout())
        parent.layout().setContentsMargins(0, 0, 0, 0)
        parent.isEntered = True
        widget = getattr(python, f"{name}Widget")(parent)
        widget.setup()
        widget.enter()
        widget.descriptor = descriptor
        return widget

    def show(self, widget, width: int = 440, height: int = 560) -> None:
        """Show a panel in the size that it has beside the views."""
        widget.parent.resize(width, height)
        widget.parent.show()
        for _ in range(3):
            self.application.processEvents()

    def heightOf(self, widget, width: int) -> int:
        """The height that a panel needs at a width, without empty space."""
        for _ in range(2):  # what has changed in a page is known to its parents a turn later
            self.show(widget, width)
        return widget.parent.layout().totalHeightForWidth(width)

    def processDeletions(self) -> None:
        """Delete the widgets that asked for it, and what they observe."""
        self.qt.QCoreApplication.sendPostedEvents(None, self.qt.QEvent.DeferredDelete)
        self.application.processEvents()

    def screenshot(self, widget, path: Path) -> None:
        """Save a picture of a panel, at twice the pixels so that text stays sharp."""
        qt = self.qt
        size = widget.parent.size
        image = qt.QImage(size * 2, qt.QImage.Format_RGB32)
        image.setDevicePixelRatio(2)
        image.fill(widget.parent.palette.window().color())
        widget.parent.render(image)
        image.save(str(path))


def packageOf(sources: Path) -> Path:
    """The folder of the package slicer in a checkout of Slicer, or of its Base/Python."""
    return next(folder for folder in (sources, sources / "slicer", sources / "Base" / "Python" / "slicer")
                if (folder / "parameterNodeWrapper").is_dir())


class _StandIns(ModuleType):
    """A module in which every class exists, for sources that only compare types."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(widgets, name, None) or type(name, (), {})
        setattr(self, name, value)
        return value
