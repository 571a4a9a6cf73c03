"""How the panel writes what may be of any length."""

from __future__ import annotations

import re
from pathlib import Path


def breakable(text: str) -> str:
    """A text that a label can break where paths and names have no spaces; for looking at, not for copying."""
    return re.sub(r"([/\\_.-])(?=\S)", "\\1\u200b", text)


def shortPath(path: str) -> str:
    """A path for looking at: ~ is the user's own folder, as terminals write it."""
    try:
        return str("~" / Path(path).relative_to(Path.home()))
    except (ValueError, RuntimeError):  # it lies elsewhere, or the user has none
        return path
