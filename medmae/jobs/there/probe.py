"""What a target is."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from medmae.jobs.there.serving import Channel


def describe(_arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Who we are there, and with what."""
    return {"python": platform.python_version(), "executable": sys.executable, "home": str(Path.home()),
            "system": platform.system(), "machine": platform.machine(), "host": platform.node(), "pid": os.getpid()}


def make_folder(arguments: dict[str, Any], _channel: Channel) -> dict[str, Any]:
    """Make the folder of MedMAE (relative to the home folder, or absolute), readable by its owner alone."""
    folder = Path.home() / Path(arguments["folder"]).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {"folder": str(folder)}
