"""Where MedMAE keeps what belongs to the user: models, runs, targets."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def home() -> Path:
    """The folder of installed models, runs and targets: ``MEDMAE_HOME``, or the user's data folder."""
    configured = os.environ.get("MEDMAE_HOME")
    if configured:
        return Path(configured).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "MedMAE"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "MedMAE"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "medmae"


def models_folder() -> Path:
    """``HOME/models``: one folder a model."""
    return home() / "models"


def runs_folder() -> Path:
    """``HOME/runs``: one folder a run."""
    return home() / "runs"
