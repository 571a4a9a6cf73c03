"""The decorator that makes the annotated attributes of a class the parameters of a node."""

from __future__ import annotations

import typing
import weakref

import slicer
import vtk

from .connectors import connectorOf
from .parameters import parameterOf

# Names that Slicer gives further methods of its own.
RESERVED = ("allParameters", "connectParametersToGui", "dataType", "default", "isCached")


def parameterNodeWrapper(cls):
    """Make the annotated attributes of a class the parameters of the node that it is called with."""
    types = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: parameterOf(kind) for name, kind in types.items()}
    for name, parameter in parameters.items():
        if hasattr(cls, name):
            parameter.default = getattr(cls, name)
        setattr(cls, name, _attribute(name))
    methods = {name: method for name, method in vars(_Methods).items() if callable(method)}
    taken = [name for name in (*methods, *RESERVED) if hasattr(cls, name) and name != "__init__"]
    if taken:
        raise ValueError(f"parameters and methods may not have the names {', '.join(taken)}")
    for name, method in methods.items():
        setattr(cls, name, method)
    cls._types, cls._parameters = types, parameters
    return cls


def _attribute(name):
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


class _Methods:
    """What every decorated class has beside its parameters."""

    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._values = {name: _Value(parameterNode, name, parameter) for name, parameter in self._parameters.items()}
        self._guis, self._isUpdatingGui = {}, False

    def getValue(self, name):
        """The value of the parameter that has a name."""
        return self._values[name].value

    def setValue(self, name, value):
        """Write the parameter that has a name."""
        self._values[name].write(value)

    def connectGui(self, gui):
        """Show parameters in the widgets that name one, and take what is entered there; gives a tag for the end."""
        named = {widget.property("SlicerParameterName"): widget for widget in vars(gui).values()
                 if widget.property("SlicerParameterName")}
        unknown = sorted(named.keys() - self._types.keys())
        if unknown:
            raise ValueError(f"there are no parameters {', '.join(unknown)}")
        connectors = {name: connectorOf(widget, self._types[name]) for name, widget in named.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(lambda name=name, connector=connector: self._takeFromGui(name, connector))
        tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: self._updateGui())
        self._guis[tag] = connectors
        return tag

    def disconnectGui(self, tag):
        """Leave the widgets alone from now on."""
        if tag in self._guis:
            for connector in self._guis.pop(tag).values():
                connector.disconnect()
            self.RemoveObserver(tag)

    def _takeFromGui(self, name, connector):
        if not self._isUpdatingGui:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _updateGui(self):
        if self._isUpdatingGui:
            return
        self._isUpdatingGui = True
        try:
            with slicer.util.NodeModify(self):
                for connectors in self._guis.values():
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._isUpdatingGui = False

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def Modified(self):
        self.parameterNode.Modified()


class _Value:
    """A parameter of one node, read again whenever the node says that it has changed."""

    def __init__(self, node, name, parameter):
        self._node, self._name, self._parameter, self._isWriting = node, name, parameter, False
        self.value = self._read()
        onModified = weakref.WeakMethod(self._onModified)  # the node must not keep this alive
        tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda _caller, _event: onModified()())
        weakref.finalize(self, node.RemoveObserver, tag).atexit = False

    def _read(self):
        if not self._parameter.isIn(self._node, self._name):
            self._parameter.check(self._parameter.default)
            self._parameter.write(self._node, self._name, self._parameter.default)
        return self._parameter.read(self._node, self._name)

    def _onModified(self):
        if not self._isWriting:
            self.value = self._read()

    def write(self, value):
        self._isWriting = True
        try:
            with slicer.util.NodeModify(self._node):
                self._parameter.check(value)
                self._parameter.write(self._node, self._name, value)
                self.value = self._read()  # before anybody is told
        finally:
            self._isWriting = False
