"""The pretraining methods by name. A new method is one file with a class like those below, and one line here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medmae.pretraining.method import PretrainingMethod

_METHODS = {
    "vis-mae": "medmae.pretraining.vis_mae:VisMaePretraining",
    "gl-mae": "medmae.pretraining.gl_mae:GlMaePretraining",
}


def method_names() -> tuple[str, ...]:
    """The names that ``--method`` takes."""
    return tuple(_METHODS)


def method_class(name: str) -> type[PretrainingMethod]:
    """The class of a method; imports torch."""
    module, _, attribute = _METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
