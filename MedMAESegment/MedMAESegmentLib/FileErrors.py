"""What the system says when it cannot read or write, in plain words."""

from __future__ import annotations

import errno

from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.Translation import tr as _

_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quotas of its own


def explained(error: Exception) -> str:
    """What went wrong, in plain words."""
    if not isinstance(error, OSError):
        return inWordsOfThePanel(str(error))
    place = error.filename2 or error.filename or ""
    if error.errno in _DISK_FULL:
        return _("The disk is full. Make room and try again. {place}").format(place=place).strip()
    if isinstance(error, PermissionError):
        return _("There is no permission to read or write {place}. Choose another place, or ask who administers this "
                 "computer.").format(place=place)
    if isinstance(error, FileNotFoundError) and place:
        return _("{place} is not there. Was it moved or removed, or is its drive not connected?").format(place=place)
    return str(error)
