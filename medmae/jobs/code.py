"""Bringing the running package to a target."""

from __future__ import annotations

import hashlib
import zlib

from medmae.jobs.transport import Transport
from medmae.jobs.wheel import wheel

PIECE = 1 << 18


def ensure_code(transport: Transport, folder: str) -> str:
    """Where exactly this package is on the target, after sending it if it has not been there.

    Args:
        transport: to the target.
        folder: that of MedMAE there, absolute.

    Returns:
        The absolute folder there that holds ``medmae``, for ``PYTHONPATH``.
    """
    content = wheel()
    which = {"folder": folder, "sha256": hashlib.sha256(content).hexdigest()}
    found = transport.call("code.find", which)["path"]
    if found is None:
        packed = zlib.compress(content)
        pieces = (packed[start:start + PIECE] for start in range(0, len(packed), PIECE))
        found = transport.call("code.unpack", which, send=pieces)["path"]
    return str(found)
