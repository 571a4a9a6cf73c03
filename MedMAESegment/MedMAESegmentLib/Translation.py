"""The translation of texts that users see, for code that also runs on the MRML library without the application."""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ModuleNotFoundError:  # without the application there is nobody to translate for

    def tr(text: str) -> str:
        """The text as it is."""
        return text


__all__ = ["tr"]
