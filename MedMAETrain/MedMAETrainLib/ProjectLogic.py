"""The part of the logic that opens projects, and what they remember of runs."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.home import runs_folder
from medmae.run_folder import RunFolder
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectRun
from MedMAETrainLib.ProjectDataset import DATASET_FILE, SCORED
from MedMAETrainLib.RunPlan import DATA_FOLDER
from MedMAETrainLib.RunRequest import readRequest


class ProjectLogic:
    """Opens projects; one that is open is given again.

    >>> project = logic.openProject(folder)
    """

    def __init__(self) -> None:
        self._projects: dict[Path, Project] = {}

    def createProject(self, folder: Path | str, name: str | None = None) -> Project:
        """Make a project in a folder, which may hold other things, and open it.

        :param name: default: that of the folder.
        :raises medmae.errors.BadInput: there is a project already, or the folder cannot be written.
        """
        return self._kept(Project.create(folder, name))

    def openProject(self, folder: Path | str, restoreBackup: bool = False) -> Project:
        """Open a project.

        :param restoreBackup: where project.json is damaged, go on from its state before the last change.
        :raises medmae.errors.BadInput: there is no project, it is damaged, of a newer MedMAE, or open in another
          Slicer.
        """
        known = self._projects.get(Path(folder).resolve())
        if known is not None and known.isOpen:
            return known
        project = self._kept(Project(folder, restoreBackup=restoreBackup))
        for run in project.runs:
            if run.model is None:
                noteModel(project, run)
        return project

    def closeProjects(self) -> None:
        """Close all projects, so that another Slicer can open them."""
        for project in self._projects.values():
            project.close()
        self._projects.clear()

    def _kept(self, project: Project) -> Project:
        self._projects[project.path] = project
        return project


def noteRun(project: Project, run: RunFolder, task: str, encoder: str) -> None:
    """Write down a run that was started on a project; the cases that it learns from are those that it was given."""
    data = read_json(run.path / DATA_FOLDER / DATASET_FILE, "data set")
    keys = ("unlabeled",) if task == "pretraining" else SCORED
    cases = tuple(item["id"] for key in keys for item in data.get(key, ()))
    project.putRun(ProjectRun(run.path.name, task, cases, now(), encoder))


def noteModel(project: Project, run: ProjectRun) -> None:
    """Write down the model of a run, where it has one by now; a project that was closed does it when it is opened."""
    try:
        model = readRequest(runs_folder() / run.id).installed
    except BadInput:  # the run was removed: what there was to know is lost
        return
    if model is not None and project.isOpen:
        project.putRun(dataclasses.replace(run, model=model))


def now() -> str:
    """The time, as runs note it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
