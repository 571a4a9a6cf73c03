"""A project in its folder: cases, labels, runs and models; every change is on disk when the call returns."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import remove_partial
from medmae.folder_lock import only_writer
from medmae.volumes.segments import Segment
from MedMAETrainLib.ProjectCase import TRUTH, ProjectCase, ProjectModel, ProjectRun
from MedMAETrainLib.ProjectFile import (
    PROJECT_FILE,
    NewerProject,
    ProjectData,
    readProject,
    restoreBackup,
    stampOf,
    writeProject,
)
from MedMAETrainLib.ProjectLabels import refuseName, withLabel
from MedMAETrainLib.ProjectSplit import refuseCrossing

CASES_FOLDER = "cases"
Cases = str | ProjectCase | Iterable[str | ProjectCase]


class ProjectFolder:
    """A project that is open; nobody else can open it meanwhile. Knows nothing of the scene.

    changed - Emitted without arguments after every change.
    """

    def __init__(self, folder: Path | str, *, restoreBackup: bool = False) -> None:
        """Open the project in a folder.

        Raises:
            BadInput: there is none, it is damaged, of a newer MedMAE, or open in another Slicer.
        """
        self.path = Path(folder).resolve()
        self.changed = Signal()
        if not self.path.is_dir():
            raise BadInput(_("The folder {folder} does not exist. Was it moved? Choose where it is now.").format(
                folder=self.path))
        lock = _locked(self.path)
        try:
            if restoreBackup:
                _restore(self.path)
            self._data = readProject(self.path)
            self._stamp = stampOf(self.path)
            if (self.path / CASES_FOLDER).is_dir():
                remove_partial(self.path / CASES_FOLDER)
        except BaseException:
            lock.close()
            raise
        self.close: Callable[[], Any] = weakref.finalize(self, lock.close)

    @classmethod
    def create(cls, folder: Path | str, name: str | None = None) -> Self:
        """Make a project in a folder, which may hold other things, and open it.

        Raises:
            BadInput: there is one already, or the folder cannot be written.
        """
        path = Path(folder).resolve()
        try:
            if (path / PROJECT_FILE).exists():
                raise BadInput(_("The folder {folder} holds a project already. Open it, or choose another "
                                 "folder.").format(folder=path))
            path.mkdir(parents=True, exist_ok=True)
            with _locked(path):
                writeProject(path, ProjectData((name or path.name).strip() or path.name, uuid.uuid4().hex))
        except OSError as error:
            raise BadInput(_("No project can be made in {folder} ({reason}). Choose another folder.").format(
                folder=path, reason=error.strerror)) from error
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def isOpen(self) -> bool:
        """Whether it can be changed; not after `close()`."""
        return bool(getattr(self.close, "alive", False))

    @property
    def name(self) -> str:
        """What the user calls the project."""
        return self._data.name

    @property
    def uid(self) -> str:
        """What tells the project apart from others, wherever it lies."""
        return self._data.uid

    @property
    def cases(self) -> tuple[ProjectCase, ...]:
        """The cases, in the order in which they were added."""
        return self._data.cases

    @property
    def labels(self) -> tuple[Segment, ...]:
        """The labels, in the user's order."""
        return self._data.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of whole images."""
        return self._data.classes

    @property
    def runs(self) -> tuple[ProjectRun, ...]:
        """What was trained on the project, oldest first."""
        return self._data.runs

    @property
    def models(self) -> tuple[ProjectModel, ...]:
        """The models that came of it."""
        return self._data.models

    def case(self, case: str | ProjectCase) -> ProjectCase:
        """A case by its id, as it is now.

        Raises:
            ValueError: there is none.
        """
        identity = case.id if isinstance(case, ProjectCase) else case
        found = next((each for each in self.cases if each.id == identity), None)
        if found is None:
            raise ValueError(_("The project {project} has no case {case}.").format(project=self.name, case=identity))
        return found

    def file(self, path: str) -> Path:
        """Where a path of a case leads."""
        return self.path / path  # an absolute one stays what it is

    def pathOf(self, file: Path | str) -> str:
        """A file as cases name it: relative, with "/", inside of the project, absolute otherwise."""
        # A link itself is kept: what it leads to may have no extension.
        absolute = Path(file).parent.resolve() / Path(file).name
        return absolute.relative_to(self.path).as_posix() if absolute.is_relative_to(self.path) else str(absolute)

    def rename(self, name: str) -> None:
        """Call the project something else; its folder stays."""
        if not name.strip():
            raise ValueError(_("A project needs a name."))
        self._change(name=name.strip())

    def setRole(self, cases: Cases, role: str) -> None:
        """Put cases into "training", "validation", "test" or "unlabelled".

        Raises:
            ValueError: a subject would be on two sides of the split.
        """
        self._changeCases(cases, role=role)

    def setSubject(self, cases: Cases, subject: str) -> None:
        """Say that cases show the same patient; a name without meaning, since it is handed to training.

        Raises:
            ValueError: the subject would be on two sides of the split.
        """
        if not subject.strip():
            raise ValueError(_("A subject needs a name."))
        self._changeCases(cases, subject=subject.strip())

    def setClass(self, cases: Cases, className: str | None) -> None:
        """Give whole images a class; None takes it away."""
        if className is not None:
            if not className.strip():
                raise ValueError(_("A class needs a name."))
            className = className.strip()
        self._changeCases(cases, className=className)

    def setState(self, cases: Cases, state: str) -> None:
        """Say how far cases are: "unannotated", "annotated", "predicted" or "corrected".

        Raises:
            ValueError: there is no segmentation that could be in this state.
        """
        for case in self._found(cases):
            if state != "unannotated" and case.label is None:
                raise ValueError(_("{case} has no usable segmentation yet. Save one first.").format(case=case.id))
        self._changeCases(cases, state=state)

    def acceptMissing(self, cases: Cases, accepted: bool = True) -> None:
        """Say that labels which cases lack are not there to see; or that they are still to be drawn. What only a model
        has drawn becomes no annotation by that."""
        changed = []
        for case in self._found(cases):
            lacks = any(label.name not in case.voxels for label in self.labels)
            state = case.state
            if accepted and state == "unannotated" and case.label is not None and not case.isDrawnByModel:
                state = "annotated"
            elif not accepted and state in TRUTH and lacks:
                state = "unannotated"
            changed.append(dataclasses.replace(case, allowMissing=accepted, state=state))
        self.putCases(changed)

    def removeCases(self, cases: Cases, deleteFiles: bool = False) -> None:
        """Take cases out of the project. What it has of them in its folder stays unless `deleteFiles`; images that lie
        elsewhere always stay."""
        gone = {case.id for case in self._found(cases)}
        self._change(cases=tuple(case for case in self.cases if case.id not in gone))
        if deleteFiles:
            for identity in gone:
                shutil.rmtree(self.path / CASES_FOLDER / identity, ignore_errors=True)

    def addLabel(self, name: str, color: Sequence[float] | None = None,
                 terminology: dict[str, Any] | None = None) -> Segment:
        """Add a label at the end; without colour and terms it gets the usual ones.

        Raises:
            ValueError: the name cannot be used, or is taken.
        """
        labels = withLabel(self.labels, name, color, terminology)
        self._change(labels=labels)
        return labels[-1]

    def setLabel(self, label: str, *, name: str | None = None, color: Sequence[float] | None = None,
                 terminology: dict[str, Any] | None = None) -> None:
        """Change name, colour or terms of a label everywhere in the project; voxels stay.

        Raises:
            ValueError: there is no such label, or the name is taken.
        """
        before = self.label(label)
        if name is not None and name != label:
            refuseName(name, [other for other in self.labels if other is not before])
        after = Segment(name or label, before.value, tuple(map(float, color)) if color else before.color,
                        terminology or before.terminology)
        cases = self.cases if after.name == label else tuple(dataclasses.replace(case, segments=tuple(
            dataclasses.replace(segment, label=after.name) if segment.label == label else segment
            for segment in case.segments)) for case in self.cases)
        self._change(labels=tuple(after if each is before else each for each in self.labels), cases=cases)

    def removeLabel(self, name: str) -> None:
        """Remove a label that no case shows.

        Raises:
            ValueError: there is no such label, or a case shows it.
        """
        label = self.label(name)
        users = [case.id for case in self.cases if any(segment.label == name for segment in case.segments)]
        if users:
            raise ValueError(_("The label {label} is in use by {cases}. Save these cases without it first.").format(
                label=name, cases=", ".join(users[:10])))
        self._change(labels=tuple(each for each in self.labels if each is not label))

    def setLabelOrder(self, names: Sequence[str]) -> None:
        """Order the labels. Where segments overlap, the one whose label comes first keeps the voxels, in segmentations
        that are saved from now on.

        Raises:
            ValueError: these are not all the labels.
        """
        if sorted(names) != sorted(label.name for label in self.labels):
            raise ValueError(_("Name every label once: {labels}.").format(
                labels=", ".join(label.name for label in self.labels)))
        self._change(labels=tuple(self.label(name) for name in names))

    def label(self, name: str) -> Segment:
        """A label by its name.

        Raises:
            ValueError: there is none.
        """
        found = next((label for label in self.labels if label.name == name), None)
        if found is None:
            raise ValueError(_("The project has no label {label}. Its labels: {labels}.").format(
                label=name, labels=", ".join(label.name for label in self.labels) or "-"))
        return found

    def newCaseIds(self) -> Iterator[str]:
        """Ids that no case has or had, also none that was removed."""
        known = {case.id for case in self.cases}
        for number in itertools.count(len(known) + 1):
            identity = f"case-{number:04d}"
            if identity not in known and not (self.path / CASES_FOLDER / identity).exists():
                yield identity

    def putCases(self, cases: Sequence[ProjectCase], labels: Sequence[Segment] | None = None) -> None:
        """Add cases, and replace those whose ids are known, in one change; `labels` replaces the labels.

        Raises:
            ValueError: a subject would be on two sides of the split.
        """
        new = {case.id: case for case in cases}
        kept = [new.pop(case.id, case) for case in self.cases]
        self._change(cases=(*kept, *new.values()), labels=tuple(self.labels if labels is None else labels))

    def putRun(self, run: ProjectRun) -> None:
        """Note a run, or what has become of it; a model that it has is noted, too."""
        known = [each for each in self.runs if each.id != run.id]
        models = self.models
        if run.model is not None and all(model.name != run.model for model in models):
            models = (*models, ProjectModel(run.model, run.id))
        self._change(runs=tuple(sorted([*known, run], key=lambda each: each.started)), models=models)

    def _found(self, cases: Cases) -> list[ProjectCase]:
        return [self.case(case) for case in ([cases] if isinstance(cases, (str, ProjectCase)) else cases)]

    def _changeCases(self, cases: Cases, **changes: Any) -> None:
        chosen = {case.id for case in self._found(cases)}
        self._change(cases=tuple(dataclasses.replace(case, **changes) if case.id in chosen else case
                                 for case in self.cases))

    def _change(self, **changes: Any) -> None:
        """Write a change; it holds once it is on disk."""
        if not self.isOpen:
            raise ValueError(_("The project {project} was closed. Open it again.").format(project=self.name))
        data = dataclasses.replace(self._data, **changes)
        if data == self._data:
            return
        given = dict.fromkeys(case.className for case in data.cases if case.className is not None)
        data = dataclasses.replace(data, classes=tuple(dict.fromkeys((*data.classes, *given))))
        refuseCrossing(data.cases)
        self._refuseForeignChange()
        try:
            self._stamp = writeProject(self.path, data)
        except OSError as error:
            raise BadInput(_("The change could not be saved in {folder} ({reason}); nothing was changed. Make room or "
                             "the folder writable, and do it again.").format(
                folder=self.path, reason=error.strerror or error)) from error
        self._data = data
        self.changed.emit()

    def _refuseForeignChange(self) -> None:
        try:
            stamp = stampOf(self.path)
        except OSError as error:
            raise BadInput(_("The project is not at {folder} any more. Was the folder moved or removed? Open the "
                             "project where it is now; nothing was changed.").format(folder=self.path)) from error
        if stamp != self._stamp:
            raise BadInput(_("The project in {folder} was changed by another Slicer or program meanwhile. Open it "
                             "again to go on with what is there now; nothing was changed.").format(folder=self.path))


def _locked(folder: Path) -> contextlib.ExitStack:
    """The lock of a project, held until it is closed."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(_("You may not write into {folder}. Make it writable, or work on a copy of it.").format(
            folder=folder))
    stack = contextlib.ExitStack()
    try:
        stack.enter_context(only_writer(folder))
    except BadInput as error:
        raise BadInput(_("The project in {folder} is open already, in another Slicer or in this one. Close it there "
                         "first.").format(folder=folder)) from error
    return stack


def _restore(folder: Path) -> None:
    """Restore the backup, unless nothing is damaged: then nothing may be lost."""
    try:
        readProject(folder)
    except NewerProject:
        raise
    except BadInput:
        restoreBackup(folder)
