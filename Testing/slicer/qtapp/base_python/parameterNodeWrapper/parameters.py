"""How a typed value is written into a parameter node and read from it, with the names and words that Slicer uses."""

from __future__ import annotations

import types
import typing
from collections.abc import MutableSequence
from dataclasses import dataclass
from enum import Enum

import slicer


@dataclass(frozen=True)
class WithinRange:
    """Annotation: the value may not lie outside."""

    minimum: float
    maximum: float

    def check(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


def parameterOf(annotated):
    """What keeps values of a type, which may be annotated with a range."""
    kind, *annotations = typing.get_args(annotated) if typing.get_origin(annotated) is typing.Annotated else [annotated]
    unknown = [annotation for annotation in annotations if not isinstance(annotation, WithinRange)]
    if unknown:
        raise NotImplementedError(f"the stand-in for Slicer's parameter nodes does not know {unknown}")
    parameter = _parameterOf(kind)
    parameter.ranges = annotations
    return parameter


def _parameterOf(kind):
    if kind in Scalar.DEFAULTS:
        return Scalar(kind)
    if typing.get_origin(kind) is list:
        return List(parameterOf(*typing.get_args(kind)))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return UnionOfNodes(typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Choice(kind)
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return Node(kind)
    raise NotImplementedError(f"the stand-in for Slicer's parameter nodes does not know {kind}")


class Parameter:
    """One parameter; by default a text of the node under the parameter's name."""

    default = None
    ranges = ()

    def check(self, value):
        """Raises TypeError or ValueError for what may not be written."""
        self.checkType(value)
        for allowed in self.ranges:
            allowed.check(value)

    def isIn(self, node, name):
        return bool(node.HasParameter(name))

    def remove(self, node, name):
        node.UnsetParameter(name)


class Scalar(Parameter):
    """A truth value, a number or a text."""

    DEFAULTS = {bool: False, int: 0, float: 0, str: ""}

    def __init__(self, kind):
        self.kind, self.default = kind, self.DEFAULTS[kind]

    def checkType(self, value):
        if value is None:
            raise ValueError("a value is needed")
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            raise TypeError(f"{value!r} is no {self.kind.__name__}")

    def write(self, node, name, value):
        node.SetParameter(name, str(value))

    def read(self, node, name):
        text = node.GetParameter(name)
        return text == "True" if self.kind is bool else self.kind(text)


class Choice(Parameter):
    """A member of an enumeration, by its name."""

    def __init__(self, kind):
        self.kind, self.default = kind, next(iter(kind))

    def checkType(self, value):
        if not isinstance(value, self.kind):
            raise TypeError(f"{value!r} is no {self.kind.__name__}")

    def write(self, node, name, value):
        node.SetParameter(name, value.name)

    def read(self, node, name):
        text = node.GetParameter(name)
        if text not in self.kind.__members__:
            raise ValueError(f"{text!r} is not the name of a {self.kind.__name__}")
        return self.kind[text]


class Node(Parameter):
    """A node or None: a reference, and an empty text that tells that it has been set."""

    def __init__(self, kind):
        self.kind = kind

    def checkType(self, value):
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"{value!r} is no {self.kind.__name__}")

    def write(self, node, name, value):
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        super().remove(node, name)
        node.RemoveNodeReferenceIDs(name)


class Nothing(Parameter):
    """None as a member of a union: the text tells that it has been chosen."""

    def write(self, node, name, value):
        node.SetParameter(name, "True")

    def read(self, node, name):
        return None


class UnionOfNodes(Parameter):
    """A node of one of several kinds; each kind has the name with its number."""

    def __init__(self, kinds):
        self.kinds = kinds
        self._members = [Nothing() if kind is type(None) else _parameterOf(kind) for kind in kinds]
        if not all(isinstance(member, (Node, Nothing)) for member in self._members):
            raise NotImplementedError(f"the stand-in for Slicer's parameter nodes knows unions of nodes, not {kinds}")

    def _all(self, name):
        return [(member, f"{name}.{number}") for number, member in enumerate(self._members)]

    def checkType(self, value):
        if not isinstance(value, self.kinds):
            raise TypeError(f"{value!r} is none of {', '.join(kind.__name__ for kind in self.kinds)}")

    def isIn(self, node, name):
        return any(member.isIn(node, numbered) for member, numbered in self._all(name))

    def write(self, node, name, value):
        self.remove(node, name)
        number = next(number for number, kind in enumerate(self.kinds) if isinstance(value, kind))
        self._members[number].write(node, f"{name}.{number}", value)

    def read(self, node, name):
        return next(member.read(node, numbered) for member, numbered in self._all(name) if member.isIn(node, numbered))

    def remove(self, node, name):
        for member, numbered in self._all(name):
            member.remove(node, numbered)


class List(Parameter):
    """Several values: their number, and each with its index in its name."""

    def __init__(self, element):
        self.element = element

    @property
    def default(self):
        return []

    def checkType(self, value):
        for index in range(len(value)):
            self.element.check(value[index])

    def isIn(self, node, name):
        return super().isIn(node, f"{name}.len")

    def write(self, node, name, value):
        length = len(self.read(node, name)) if self.isIn(node, name) else 0
        for index, element in enumerate(value):
            self.element.write(node, f"{name}.{index}", element)
        node.SetParameter(f"{name}.len", str(len(value)))
        for index in range(len(value), length):
            self.element.remove(node, f"{name}.{index}")

    def read(self, node, name):
        length = int(node.GetParameter(f"{name}.len"))
        return ObservedList(self, node, name, [self.element.read(node, f"{name}.{index}") for index in range(length)])


class ObservedList(MutableSequence):
    """A list that is written into its parameter node whenever it is changed."""

    def __init__(self, parameter, node, name, items):
        self._parameter, self._node, self._name, self._items = parameter, node, name, items

    def _save(self):
        try:
            self._parameter.check(self._items)
            with slicer.util.NodeModify(self._node):
                self._parameter.write(self._node, self._name, self._items)
        finally:
            self._items = self._parameter.read(self._node, self._name)._items

    def __len__(self):
        return len(self._items)

    def __eq__(self, other):
        return self._items == (other._items if isinstance(other, ObservedList) else other)

    def __getitem__(self, index):
        return self._items[index]

    def __setitem__(self, index, item):
        self._items[index] = item
        self._save()

    def __delitem__(self, index):
        del self._items[index]
        self._save()

    def insert(self, index, item):
        self._items.insert(index, item)
        self._save()
