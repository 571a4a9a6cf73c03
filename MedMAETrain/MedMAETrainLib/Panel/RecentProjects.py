"""The projects that were open last, remembered with the user's settings of Slicer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt

from MedMAETrainLib.ProjectFile import BACKUP_FILE, PROJECT_FILE

SETTING = "MedMAE/RecentProjects"
MOST = 8


@dataclass(frozen=True)
class RecentProject:
    """A project that was open once: where, and what it was called then."""

    folder: str
    name: str

    @property
    def isThere(self) -> bool:
        """Whether there is still a project. Asks the disk."""
        folder = Path(self.folder)
        try:
            return (folder / PROJECT_FILE).exists() or (folder / BACKUP_FILE).exists()
        except OSError:  # a drive that may not be looked at
            return False


def recentProjects() -> list[RecentProject]:
    """The projects that were open last, newest first."""
    saved = qt.QSettings().value(SETTING)
    try:
        entries: Any = json.loads(saved) if isinstance(saved, str) else []
    except ValueError:  # settings that somebody has edited
        return []
    return [RecentProject(*entry) for entry in entries if isinstance(entry, list) and len(entry) == 2
            and all(isinstance(part, str) for part in entry)] if isinstance(entries, list) else []


def rememberProject(folder: str, name: str) -> None:
    """Put a project at the beginning of the list."""
    _save([RecentProject(folder, name), *(each for each in recentProjects() if each.folder != folder)])


def forgetProject(folder: str) -> None:
    """Take a project out of the list; the project itself stays."""
    _save([each for each in recentProjects() if each.folder != folder])


def _save(projects: list[RecentProject]) -> None:
    qt.QSettings().setValue(SETTING, json.dumps([[each.folder, each.name] for each in projects[:MOST]]))
