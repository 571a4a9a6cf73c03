"""The truth of a project on disk, project.json: whole at any time, and its last state beside it."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.config import from_json, to_json
from medmae.errors import BadInput
from medmae.files import atomic_path, read_json, write_json
from medmae.volumes.segments import Segment
from MedMAETrainLib.ProjectCase import ProjectCase, ProjectModel, ProjectRun

PROJECT_FILE = "project.json"
BACKUP_FILE = "project.backup.json"
DAMAGED_FILE = "project.damaged.json"
VERSION = 1
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class ProjectData:
    """All that project.json says.

    name - Of the project.
    uid - Tells it apart from other projects, also when it has moved.
    cases - In the order in which they were added.
    labels - In the user's order: where segments overlap, the one whose label comes first keeps the voxels. Values are
      those in the label maps and never change.
    classes - Of whole images; their places are the values that the engine sees.
    """

    name: str
    uid: str
    cases: tuple[ProjectCase, ...] = ()
    labels: tuple[Segment, ...] = ()
    classes: tuple[str, ...] = ()
    runs: tuple[ProjectRun, ...] = ()
    models: tuple[ProjectModel, ...] = ()

    def __post_init__(self) -> None:
        for what, names in (("case", [case.id for case in self.cases]), ("class", list(self.classes)),
                            ("label", [label.name for label in self.labels]), ("run", [run.id for run in self.runs]),
                            ("label value", [label.value for label in self.labels])):
            if len(set(names)) < len(names):
                raise ValueError(f"the {what} {Counter(names).most_common(1)[0][0]} stands there twice")
        strange = [case.id for case in self.cases if not re.fullmatch(r"\w[\w.-]*", case.id)]
        if strange:
            raise ValueError(f"{strange[0]!r} cannot be the id of a case")


def readProject(folder: Path) -> ProjectData:
    """Read the project in a folder.

    Raises:
        BadInput: there is none, it is of a newer MedMAE, or as a `DamagedProject` damaged.
    """
    file = folder / PROJECT_FILE
    if not file.exists() and not (folder / BACKUP_FILE).exists():
        raise BadInput(_("The folder {folder} holds no project of MedMAE. Choose another folder, or create a project "
                         "there.").format(folder=folder))
    try:
        return parsed(read_json(file, "project file"))
    except NewerProject:
        raise
    except (BadInput, OSError) as error:
        remedy, hasBackup = _remedy(folder)
        raise DamagedProject(_("The project in {folder} cannot be read: {problem} {remedy}").format(
            folder=folder, problem=str(error).rstrip(".") + ".", remedy=remedy), hasBackup) from error


class NewerProject(BadInput):
    """The project was written by a newer MedMAE."""


class DamagedProject(BadInput):
    """The project cannot be read; `hasBackup` says whether there is an earlier state to go on from."""

    def __init__(self, message: str, hasBackup: bool) -> None:
        super().__init__(message)
        self.hasBackup = hasBackup


def parsed(data: Any) -> ProjectData:
    """The project that JSON data describe.

    Raises:
        BadInput: they describe none, or one that does not fit together.
    """
    if not isinstance(data, Mapping) or isinstance(data.get("version"), bool) or not isinstance(
            data.get("version"), int):
        raise BadInput(_("The project file is not one of MedMAE."))
    if data["version"] > VERSION:
        raise NewerProject(_("The project was saved by a newer MedMAE (version {version} of its file, this MedMAE "
                             "knows {known}). Update the extension MedMAE to open it; nothing was changed.").format(
            version=data["version"], known=VERSION))
    content = {key: value for key, value in data.items() if key != "version"}
    if isinstance(content.get("cases"), list):
        content["cases"] = [_renamed(case, "class", "className") for case in content["cases"]]
    return from_json(ProjectData, content, "project file")


def described(data: ProjectData) -> dict[str, Any]:
    """A project as JSON data."""
    content = to_json(data)
    content["cases"] = [_renamed(case, "className", "class") for case in content["cases"]]
    return {"version": VERSION, **content}


def writeProject(folder: Path, data: ProjectData) -> Stamp:
    """Write a project; what was there becomes the backup. Returns what tells whether anybody else has written since.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    file = folder / PROJECT_FILE
    if file.exists():
        with atomic_path(folder / BACKUP_FILE) as temporary:
            shutil.copyfile(file, temporary)
    write_json(file, described(data))
    return stampOf(folder)


def stampOf(folder: Path) -> Stamp:
    """What changes whenever project.json is written."""
    state = (folder / PROJECT_FILE).stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def restoreBackup(folder: Path) -> None:
    """Put the last good state in the place of a damaged project.json, which is kept under another name.

    Raises:
        BadInput: there is no good state.
    """
    data = described(parsed(read_json(folder / BACKUP_FILE, "backup of the project")))
    if (folder / PROJECT_FILE).exists():
        (folder / PROJECT_FILE).replace(folder / DAMAGED_FILE)
    write_json(folder / PROJECT_FILE, data)


def _remedy(folder: Path) -> tuple[str, bool]:
    file = folder / BACKUP_FILE
    try:
        backup = parsed(read_json(file, "backup of the project"))
    except BadInput:
        return _("There is no earlier state of it either. Restore {file} from a backup of the folder; the images and "
                 "segmentations in it are untouched.").format(file=PROJECT_FILE), False
    return _("Its state before the last change, of {date} with {count} cases, is there: restore the backup (in the "
             "console: restoreBackup=True) to go on from it. The damaged file is kept as {file}.").format(
        date=datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m-%d %H:%M"), count=len(backup.cases),
        file=DAMAGED_FILE), True


def _renamed(case: Any, before: str, after: str) -> Any:
    if not isinstance(case, dict):
        return case
    return {after if key == before else key: value for key, value in case.items()}
