"""A project of MedMAE Train: annotated and other cases in a folder, whatever scene is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.HandOver import HandOver
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from MedMAETrainLib import ProjectImages, ProjectImport, ProjectScene
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectDataset import writeDataset
from MedMAETrainLib.ProjectFolder import CASES_FOLDER, Cases, ProjectFolder
from MedMAETrainLib.ProjectImport import Added, CaseChoices
from MedMAETrainLib.ProjectThumbnail import THUMBNAIL, writeThumbnail

Result = TypeVar("Result")


class Project(ProjectFolder):
    """A `ProjectFolder` that takes cases from the scene and brings them there. All calls keep the application alive.

    >>> project = Project.create(folder, "Livers")
    >>> project.addCase(volumeNode, segmentationNode)
    """

    def __init__(self, folder: Path | str, *, restoreBackup: bool = False) -> None:
        super().__init__(folder, restoreBackup=restoreBackup)
        self._handOvers: list[HandOver] = []

    def addCase(self, volumeNode: Any, segmentationNode: Any = None, *, mapping: Mapping[str, str | None] | None = None,
                role: str | None = None, subject: str | None = None, className: str | None = None,
                allowMissing: bool = False, again: bool = False) -> ProjectCase:
        """Copy a volume of the scene, and its segmentation where there is one, into the project.

        :param mapping: the label of segments by their names: a label of the project, a new one, or None to leave a
          segment out; default: labels of like names. The segments of the first case are the first labels.
        :param role: default: "training" with a segmentation or class, else "unlabelled"; that of the patient's other
          cases where these are for validation or test.
        :param subject: default: the same for the same patient, as far as DICOM or the subject hierarchy tells.
        :param className: of the whole image.
        :param allowMissing: what is not drawn is not there to see; otherwise a case that lacks a label is kept as not
          annotated yet.
        :param again: add the volume although it is a case already.
        :raises ValueError: the case cannot be added; why, and what to do.
        """
        choices = CaseChoices(mapping, role, subject, className, allowMissing, again)
        nodes = [node for node in (volumeNode, segmentationNode) if node is not None]
        case = self._alive(lambda between: ProjectImport.addVolume(
            self, volumeNode, segmentationNode, choices, between), nodes)
        self.makeThumbnails(case)
        return case

    def addScene(self, *, mapping: Mapping[str, str | None] | None = None, role: str | None = None,
                 allowMissing: bool = False, progressCallback: ProgressCallback | None = None) -> Added:
        """Add every volume of the scene with the segmentation that refers to it; see `addCase`. What cannot be added
        is told in `skipped` and keeps nothing else out.

        :param mapping: may name segments that only some of the segmentations have.
        :param progressCallback: called with (fraction from 0 to 1, name) before each.
        """
        choices = CaseChoices(mapping, role, allowMissing=allowMissing)
        return self._withThumbnails(self._alive(lambda between: ProjectImport.addPairs(
            self, choices, between, progressCallback or _silent)))

    def addImages(self, paths: str | Path | Sequence[str | Path], role: str | None = None, *,
                  progressCallback: ProgressCallback | None = None) -> Added:
        """Add the images that files, folders and patterns name; they stay where they are.

        :param role: default: "unlabelled".
        :param progressCallback: called with (fraction from 0 to 1, name) before each.
        :raises medmae.errors.BadInput: nothing is found there.
        """
        given = [paths] if isinstance(paths, (str, Path)) else list(paths)
        return self._alive(lambda between: ProjectImages.addFiles(
            self, given, role, between, progressCallback or _silent))

    def addDicom(self, seriesUIDs: str | Iterable[str], role: str | None = None, *,
                 progressCallback: ProgressCallback | None = None) -> Added:
        """Add series of Slicer's DICOM database, by their instance UIDs.

        :param progressCallback: called with (fraction from 0 to 1, name) before each.
        :raises ValueError: the database is not open.
        """
        given = [seriesUIDs] if isinstance(seriesUIDs, str) else list(seriesUIDs)
        return self._alive(lambda between: ProjectImages.addSeries(
            self, given, role, between, progressCallback or _silent))

    def openCase(self, case: str | ProjectCase) -> tuple[Any, Any]:
        """Bring a case into the scene: its volume node and a segmentation node to draw in.

        :raises ValueError: its files cannot be loaded.
        """
        return ProjectScene.openCase(self, self.case(case))

    def saveCase(self, segmentationNode: Any, volumeNode: Any = None, *, case: str | ProjectCase | None = None,
                 state: str | None = None, mapping: Mapping[str, str | None] | None = None,
                 allowMissing: bool | None = None) -> ProjectCase:
        """Save a segmentation back to its case; an image for pretraining that was annotated becomes one for training.

        :param volumeNode: default: the one that the segmentation refers to.
        :param case: default: the one that was opened or added.
        :param state: default: "annotated", or "corrected" where there was a prediction.
        :param mapping, allowMissing: see `addCase`; default: as last time.
        :raises ValueError: it cannot be saved; why, and what to do.
        """
        if volumeNode is None:
            role = segmentationNode.GetReferenceImageGeometryReferenceRole()
            volumeNode = segmentationNode.GetNodeReference(role)
        found = self.case(case) if case is not None else (
            ProjectImport.caseOfNode(self, segmentationNode) or ProjectImport.caseOfNode(self, volumeNode))
        if found is None or volumeNode is None:
            text = _("{segmentation} belongs to no case of the project. Open the case first, or add it.")
            raise ValueError(text.format(segmentation=segmentationNode.GetName()))
        saved = self._alive(lambda between: ProjectScene.saveCase(
            self, segmentationNode, volumeNode, found, state, mapping, allowMissing, between),
            [volumeNode, segmentationNode])
        self.makeThumbnails(saved, again=True)
        return saved

    def thumbnail(self, case: str | ProjectCase) -> Path | None:
        """The picture of a case, 96 x 96 pixels; None: it was not made yet."""
        identity = case.id if isinstance(case, ProjectCase) else self.case(case).id
        path = self.path / CASES_FOLDER / identity / THUMBNAIL
        return path if path.exists() else None

    def thumbnailWriter(self, case: ProjectCase) -> Callable[[], Path]:
        """What makes the picture of a case; it may be called in any thread."""
        path = self.path / CASES_FOLDER / case.id / THUMBNAIL
        image, label = self.file(case.image), None if case.label is None else self.file(case.label)
        labels = self.labels
        return lambda: writeThumbnail(path, image, label, labels)

    def makeThumbnails(self, cases: Cases | None = None, *, again: bool = False) -> dict[str, str]:
        """Make the pictures of cases that have none; returns why those of others could not be made, by case."""
        return self._alive(lambda between: self._drawn(self.cases if cases is None else cases, again, between))

    def writeDataset(self, task: str = "segmentation", file: Path | None = None, *, modality: str | None = None,
                     allowMissing: bool = False) -> Path:
        """Write dataset.json, for the command line; see `ProjectDataset.writeDataset`."""
        return writeDataset(self, task, file=file, modality=modality, allowMissing=allowMissing)

    def cancel(self) -> None:
        """End what is under way; the call raises RunCancelled. What it has finished stays."""
        for handOver in self._handOvers:
            handOver.cancel()

    def _alive(self, work: Callable[[HandOver], Result], nodes: Sequence[Any] = ()) -> Result:
        """Do something of which `HandOver` is called between the parts."""
        handOver = HandOver(nodes)
        self._handOvers.append(handOver)
        try:
            return work(handOver)
        finally:
            self._handOvers.remove(handOver)

    def _withThumbnails(self, added: Added) -> Added:
        self.makeThumbnails(added.cases)
        return added

    def _drawn(self, cases: Cases, again: bool, between: HandOver) -> dict[str, str]:
        problems = {}
        for case in self._found(cases):
            path = self.path / CASES_FOLDER / case.id / THUMBNAIL
            if path.exists() and not again:
                continue
            try:
                inBackground(self.thumbnailWriter(case), between)
            except (BadInput, OSError) as error:
                problems[case.id] = str(error)
            between()
        self.changed.emit()
        return problems


def _silent(_fraction: float, _message: str) -> None:
    """Nobody wants to know how far it is."""
