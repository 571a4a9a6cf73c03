"""Typed attributes of a class that are kept in a `vtkMRMLScriptedModuleNode`, and the widgets that show them."""

from .parameters import WithinRange
from .wrapper import parameterNodeWrapper

__all__ = ["WithinRange", "parameterNodeWrapper"]
