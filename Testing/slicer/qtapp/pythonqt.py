"""PySide6 as the module ``qt``, with properties as attributes, as PythonQt has them."""

from __future__ import annotations

import ctypes
from types import ModuleType

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from qtapp import widgets

# Methods in PySide6 and PythonQt that happen to have the name of a property somewhere
_KEEP_METHODS = {"layout", "parent", "children"}


def makeQtModule() -> ModuleType:
    """The module that ``import qt`` shall give."""
    _keepSingletonsAlive()
    qt = ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        for name in dir(source):
            if not name.startswith("_"):
                setattr(qt, name, getattr(source, name))
    qt.QUiLoader = UiLoader
    _addProperties([getattr(QtWidgets, name) for name in dir(QtWidgets)] + [QtCore.QObject, QtGui.QAction])
    return qt


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files that use CTK and qMRML widgets."""

    def __init__(self) -> None:
        super().__init__()
        for widget in widgets.ALL:
            self.registerCustomWidget(widget)


def _keepSingletonsAlive() -> None:
    """Make None, True and False immortal, as they are from Python 3.12 on.

    Every call of PySide (6.12) that returns nothing gives back a None that it does not own; after some ten thousand
    calls Python 3.11 would end.
    """
    for singleton in (None, True, False):
        ctypes.c_ssize_t.from_address(id(singleton)).value += 2**30


def _addProperties(classes: list[object]) -> None:
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, QtCore.QObject)):
            continue
        meta = cls.staticMetaObject
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _KEEP_METHODS:
                setattr(cls, name, _attribute(name))
    QtCore.QObject.name = _attribute("objectName")  # PythonQt's second name for it


def _attribute(name: str) -> property:
    return property(lambda self: self.property(name), lambda self, value: self.setProperty(name, value))
