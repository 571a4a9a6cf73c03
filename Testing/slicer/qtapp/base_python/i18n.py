"""Translation as scripted modules ask for it: the context of a text is the file that it stands in."""

from __future__ import annotations

import inspect
import logging
import string
from pathlib import Path

import slicer


def translate(context, text):
    """The text in the language of the application."""
    return slicer.app.translate(context, text)


def tr(text):
    """The text in the language of the application, unless its translator has lost a place to be filled in."""
    translated = translate(_context(Path(inspect.currentframe().f_back.f_code.co_filename)), text)
    if _places(translated) == _places(text):
        return translated
    logging.warning(f"The translation of '{text}' has other places to be filled in: '{translated}'")
    return text


def _context(file):
    """Package.File where a file is part of a package, else File."""
    return f"{file.parent.name}.{file.stem}" if (file.parent / "__init__.py").is_file() else file.stem


def _places(text):
    return {name for _text, name, _format, _conversion in string.Formatter().parse(text) if name}
