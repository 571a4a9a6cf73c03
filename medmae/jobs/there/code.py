"""The package MedMAE on a target: ``FOLDER/code/<sha256 of its wheel>/``."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.files import PARTIAL
from medmae.jobs.there.data import SHA256, inside, medmae_folder
from medmae.jobs.there.serving import Channel


def find(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Where the package of the wheel `sha256` is; None where it has not been unpacked."""
    place = _place(arguments)
    return {"path": str(place) if place.is_dir() else None}


def unpack(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Unpack the wheel `sha256`, which the caller sends compressed.

    Raises:
        BadInput: it arrived damaged, or a name in it leads elsewhere.
    """
    place = _place(arguments)
    try:
        wheel = zlib.decompress(channel.read())
    except zlib.error:
        wheel = b""
    if hashlib.sha256(wheel).hexdigest() != arguments["sha256"]:
        raise BadInput("The package arrived damaged. Submit the job again.")
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=place.parent))
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for name in archive.namelist():
                file = temporary / inside(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
        try:
            temporary.rename(place)
        except OSError:
            if not place.is_dir():  # another call was quicker
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"path": str(place)}


def _place(arguments: dict[str, Any]) -> Path:
    if not SHA256.fullmatch(arguments["sha256"]):
        raise BadInput(f"{arguments['sha256']!r} is not a SHA-256.")
    return medmae_folder(arguments) / "code" / arguments["sha256"]
