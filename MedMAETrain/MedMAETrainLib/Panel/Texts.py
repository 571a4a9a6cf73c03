"""How the panel writes what may be of any length."""

from __future__ import annotations

import re


def breakable(text: str) -> str:
    """A text that a label can break where paths and names have no spaces; for looking at, not for copying."""
    return re.sub(r"([/\\_.-])(?=\S)", "\\1\u200b", text)
