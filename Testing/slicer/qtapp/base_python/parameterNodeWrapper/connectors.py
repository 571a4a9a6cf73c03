"""Widgets that show a parameter: how its value comes into them and out of them, and which signal tells of a change."""

from __future__ import annotations

import types
import typing
from enum import Enum

import qt
import slicer

from .parameters import WithinRange

MOST_OF_A_SPIN_BOX = 2**31


def connectorOf(widget, annotated):
    """What connects a widget with a parameter of a type; RuntimeError when they do not belong together."""
    kind, *annotations = typing.get_args(annotated) if typing.get_origin(annotated) is typing.Annotated else [annotated]
    for connector in (CheckBox, SpinBox, DoubleSpinBox, LineEdit, ChoiceBox, NodeBox):
        if type(widget) is connector.widgetClass() and connector.shows(kind):
            return connector(widget, kind, annotations)
    raise RuntimeError(f"A {type(widget).__name__} cannot show {annotated}, or the stand-in does not know how.")


class Connector:
    """One widget and its parameter."""

    def __init__(self, widget, kind, annotations):
        self.widget = widget
        self.prepare(kind, annotations)

    def prepare(self, kind, annotations):
        pass

    def connect(self, callback):
        self._callback = lambda *_values: callback()
        self.signal().connect(self._callback)

    def disconnect(self):
        self.signal().disconnect(self._callback)


class CheckBox(Connector):
    widgetClass = staticmethod(lambda: qt.QCheckBox)
    shows = staticmethod(lambda kind: kind is bool)

    def signal(self):
        return self.widget.stateChanged

    def read(self):
        return self.widget.checked

    def write(self, value):
        self.widget.checked = value


class SpinBox(Connector):
    widgetClass = staticmethod(lambda: qt.QSpinBox)
    shows = staticmethod(lambda kind: kind is int)
    limits = (-MOST_OF_A_SPIN_BOX, MOST_OF_A_SPIN_BOX - 1)

    def prepare(self, kind, annotations):
        ranges = [(a.minimum, a.maximum) for a in annotations if isinstance(a, WithinRange)]
        self.widget.setRange(*(ranges or [self.limits])[0])

    def signal(self):
        return self.widget.valueChanged

    def read(self):
        return self.widget.value

    def write(self, value):
        self.widget.value = value


class DoubleSpinBox(SpinBox):
    widgetClass = staticmethod(lambda: qt.QDoubleSpinBox)
    shows = staticmethod(lambda kind: kind is float)
    limits = (float("-inf"), float("inf"))


class LineEdit(Connector):
    widgetClass = staticmethod(lambda: qt.QLineEdit)
    shows = staticmethod(lambda kind: kind is str)

    def signal(self):
        return self.widget.textChanged

    def read(self):
        return self.widget.text

    def write(self, value):
        if value != self.widget.text:  # else the cursor would jump to the end while somebody types
            self.widget.text = value


class ChoiceBox(Connector):
    widgetClass = staticmethod(lambda: qt.QComboBox)
    shows = staticmethod(lambda kind: isinstance(kind, type) and issubclass(kind, Enum))

    def prepare(self, kind, annotations):
        self._choices = list(kind)
        self.widget.clear()
        for choice in self._choices:
            self.widget.addItem(choice.label() if hasattr(choice, "label") else choice.name)

    def signal(self):
        return self.widget.currentIndexChanged

    def read(self):
        return self._choices[self.widget.currentIndex]

    def write(self, value):
        self.widget.currentIndex = self._choices.index(value)


class NodeBox(Connector):
    widgetClass = staticmethod(lambda: slicer.qMRMLNodeComboBox)

    @staticmethod
    def shows(kind):
        return all(issubclass(member, (slicer.vtkMRMLNode, type(None))) for member in _members(kind))

    def prepare(self, kind, annotations):
        self.widget.nodeTypes = [member().GetClassName() for member in _members(kind) if member is not type(None)]

    def signal(self):
        return self.widget.currentNodeChanged

    def read(self):
        return self.widget.currentNode()

    def write(self, value):
        self.widget.setCurrentNode(value)


def _members(kind):
    isUnion = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if isUnion else (kind,)
