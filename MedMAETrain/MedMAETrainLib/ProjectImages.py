"""Images of folders and of the DICOM database become cases; they stay where they are."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.volumes import find_images
from medmae.volumes.contents import Part, images_of_dicom_folder
from medmae.volumes.dicom_series import is_dicom_file, read_slice_headers
from MedMAETrainLib.ProjectCase import ProjectCase, Source, isTraining
from MedMAETrainLib.ProjectFolder import CASES_FOLDER, ProjectFolder
from MedMAETrainLib.ProjectImport import Added, knownText
from MedMAETrainLib.ProjectSource import database, patientOfFile, sourceOfSeries
from MedMAETrainLib.ProjectSplit import newSubjects

DICOM_FOLDER = "dicom"


def addFiles(project: ProjectFolder, paths: Sequence[str | Path], role: str | None,
             between: Callable[[], None], report: ProgressCallback) -> Added:
    """Add the images that files, folders and patterns name; a folder of DICOM slices is an image, or one a series.

    Raises:
        medmae.errors.BadInput: there is no image; or the project cannot be written.
    """
    own = project.path / CASES_FOLDER
    added = Added()
    batch = _Batch(project, role, added)
    report(0.0, _("Looking for images"))
    found = inBackground(lambda: list(_imagesOf(paths)), between)
    for number, (part, files, problem) in enumerate(found):
        report(number / len(found), part.path.name)
        between()
        if problem:
            added.skipped.append((str(part.path), problem))
        elif own not in part.path.resolve().parents:
            patient, series, modality = patientOfFile(files[0]) if part.path.is_dir() else ("", "", "")
            source = Source("file", part.path.name, "", part.series or series, patient)
            batch.add(source, modality, part.path if part.series is None else None, files, between)
    batch.finish()
    return added


def addSeries(project: ProjectFolder, seriesUIDs: Sequence[str], role: str | None,
              between: Callable[[], None], report: ProgressCallback) -> Added:
    """Add series of Slicer's DICOM database.

    Raises:
        ValueError: the database is not open.
        medmae.errors.BadInput: the project cannot be written.
    """
    dicom = database()
    if dicom is None:
        raise ValueError(_("Slicer's DICOM database is not open. Open the module DICOM once, then choose series."))
    added = Added()
    batch = _Batch(project, role, added)
    for number, uid in enumerate(seriesUIDs):
        report(number / len(seriesUIDs), uid)
        between()
        files = [Path(file) for file in dicom.filesForSeries(uid)]
        lost = [file for file in files if not file.is_file()]
        if not files or lost:
            added.skipped.append((uid, _("Its files are not there any more. Import the series again.") if lost else
                                  _("The DICOM database has no files of this series.")))
            continue
        source, modality = sourceOfSeries(uid, [str(file) for file in files])
        batch.add(source, modality, _placeOf(files), files, between)
    batch.finish()
    return added


class _Batch:
    """New cases, which are written to the project in one change. Thousands are usual, so nothing is searched for."""

    def __init__(self, project: ProjectFolder, role: str | None, added: Added) -> None:
        self._project, self._role, self._added = project, role, added
        self._ids, self._subjects = project.newCaseIds(), newSubjects(case.subject for case in project.cases)
        self._known: dict[tuple[str, str], ProjectCase] = {}
        self._subjectOf: dict[str, str] = {}
        self._heldOut = {case.subject: case.role for case in project.cases if not isTraining(case.role)}
        for case in project.cases:
            self._note(case)

    def add(self, source: Source, modality: str, place: Path | None, files: Sequence[Path],
            between: Callable[[], None]) -> None:
        """Add an image; without a place of its own its files are copied into the project."""
        project = self._project
        source = dataclasses.replace(source, file=project.pathOf(place) if place is not None else "")
        same = next((case for key in _keysOf(source) if (case := self._known.get(key)) is not None
                     and case.source.isSameImage(source)), None)
        if same is not None:
            self._added.skipped.append((source.name, knownText(source, same)))
            return
        identity = next(self._ids)
        if place is None:
            place = project.path / CASES_FOLDER / identity / DICOM_FOLDER
            target = place
            try:
                inBackground(lambda: _copy(files, target), between)
            except OSError as error:
                self._added.skipped.append((source.name, str(error)))
                return
        subject = self._subjectOf.get(source.patient) or next(self._subjects)
        case = ProjectCase(identity, subject, project.pathOf(place), source, modality=modality,
                           role=self._role or self._heldOut.get(subject, "unlabelled"))
        self._added.cases.append(case)
        self._note(case)

    def finish(self) -> None:
        """Write them to the project."""
        self._project.putCases(self._added.cases)

    def _note(self, case: ProjectCase) -> None:
        for key in _keysOf(case.source):
            self._known.setdefault(key, case)
        if case.source.patient:
            self._subjectOf.setdefault(case.source.patient, case.subject)


def _keysOf(source: Source) -> list[tuple[str, str]]:
    return [(key, value) for key, value in (("series", source.series), ("file", source.file)) if value]


def _imagesOf(paths: Sequence[str | Path]) -> Iterator[tuple[Part, list[Path], str]]:
    """The images with their files, and folders that cannot be read with the reason. Takes as long as the disk."""
    for found in find_images(list(paths)):
        if not found.path.is_dir():
            yield Part(found.path), [found.path], ""
            continue
        try:
            for part in images_of_dicom_folder(found.path):
                yield part, _filesOf(part), ""
        except (BadInput, OSError) as error:
            yield Part(found.path), [], str(error)


def _filesOf(part: Part) -> list[Path]:
    if not part.path.is_dir():
        return [part.path]
    if part.series is None:
        return [file for file in sorted(part.path.iterdir()) if is_dicom_file(file)]
    return [header.path for header in read_slice_headers(part.path) if header.series == part.series]


def _placeOf(files: Sequence[Path]) -> Path | None:
    """Where an image of these files lies: the file, or the folder when nothing else is in it."""
    if len(files) == 1:
        return files[0]
    folder = files[0].parent
    return folder if {file.name for file in folder.iterdir()} == {file.name for file in files} and all(
        file.parent == folder for file in files) else None


def _copy(files: Sequence[Path], folder: Path) -> None:
    """Files of a series that shares its folder with others."""
    for number, file in enumerate(files, 1):
        linkOrCopy(file, folder / f"{number:05d}.dcm")


def linkOrCopy(file: Path, target: Path) -> Path:
    """Give a file a second place, without a copy where the disk can do that; returns the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
    return target
