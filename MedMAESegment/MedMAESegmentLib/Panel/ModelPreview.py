"""The picture of a model in the panel."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

_SIDE = 96
_MOST_BYTES, _MOST_PIXELS = 8 * 2**20, 2048  # a stranger's picture must not fill the memory when it is unpacked
_PNG = b"\x89PNG\r\n\x1a\n"


def showPreview(label: Any, folder: Path | None) -> None:
    """Put the preview of the model in `folder` on a QLabel; without a usable one words in a quiet colour."""
    pixmap = qt.QPixmap(str(folder / "preview.png")) if folder is not None and isUsablePicture(
        folder / "preview.png") else qt.QPixmap()
    label.clear()
    label.enabled = not pixmap.isNull()
    if pixmap.isNull():
        label.text = _("No picture")
        return
    ratio = label.devicePixelRatioF()
    side = round(_SIDE * ratio)
    pixmap = pixmap.scaled(side, side, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation)
    pixmap.setDevicePixelRatio(ratio)
    label.setPixmap(pixmap)


def isUsablePicture(file: Path) -> bool:
    """Whether a file is a PNG that is small enough to be unpacked, whoever it comes from."""
    try:
        with open(file, "rb") as stream:
            start = stream.read(24)
        size = file.stat().st_size
    except OSError:
        return False
    if size > _MOST_BYTES or len(start) < 24 or not start.startswith(_PNG):
        return False
    return all(1 <= side <= _MOST_PIXELS for side in struct.unpack(">II", start[16:24]))
