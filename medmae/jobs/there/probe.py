"""What a target is."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.jobs.there.serving import Channel


def describe(_arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Who we are there, and with what."""
    return {"python": platform.python_version(), "executable": sys.executable, "home": str(Path.home()),
            "system": platform.system(), "machine": platform.machine(), "host": platform.node(), "pid": os.getpid()}


def make_folder(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Make the folder of MedMAE (relative to the home folder, or absolute), readable by its owner alone.

    Raises:
        BadInput: it is the home folder itself, or holds it; that is not ours to close to others.
    """
    folder = Path.home() / Path(arguments["folder"]).expanduser()
    if Path.home().resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{folder} cannot be MedMAE's folder: it is not for it alone. Name a folder below it.")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {"folder": str(folder)}
