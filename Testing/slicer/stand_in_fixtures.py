"""Slicer's own Python classes and the stand-ins for them, side by side in one process, for tests that hold for both."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from panel_fixtures import NEEDS_SOURCE, SOURCE

OWN = pytest.param("Slicer's own", marks=NEEDS_SOURCE)


@pytest.fixture
def base_python_of(qt_application):
    """Slicer's own classes, or the stand-ins: base_python_of("Slicer's own")."""
    qt_application.completeSlicerApp()
    return _load


@pytest.fixture(params=["stand-ins", OWN])
def base_python(base_python_of, request):
    """Whatever a test says holds for the stand-ins and for Slicer's own classes."""
    return base_python_of(request.param)


def _load(which):
    from qtapp.application import STAND_INS, packageOf

    alias = "stand_ins" if which == "stand-ins" else "slicers_own"
    if alias not in sys.modules:
        package = ModuleType(alias)
        package.__path__ = [str(packageOf(Path(STAND_INS if which == "stand-ins" else SOURCE)))]
        sys.modules[alias] = package
    nodes, modules, i18n = (importlib.import_module(f"{alias}.{name}")
                            for name in ("parameterNodeWrapper", "ScriptedLoadableModule", "i18n"))
    return SimpleNamespace(**vars(modules), parameterNodeWrapper=nodes.parameterNodeWrapper,
                           WithinRange=nodes.WithinRange, tr=i18n.tr, translate=i18n.translate)
