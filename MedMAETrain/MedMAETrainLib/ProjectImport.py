"""Volumes of the scene, alone or with their segmentations, become cases of a project."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.Modality import modalityOf
from MedMAESegmentLib.SceneVolumes import imageVolumes
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import writeVolume

from medmae.errors import BadInput
from medmae.files import PARTIAL
from MedMAETrainLib.CaseExport import guessModality
from MedMAETrainLib.LabelExport import segmentNames
from MedMAETrainLib.ProjectCase import ProjectCase, Source
from MedMAETrainLib.ProjectFolder import CASES_FOLDER, ProjectFolder
from MedMAETrainLib.ProjectSegmentation import gridOf, matchSegments, saveSegmentation
from MedMAETrainLib.ProjectSource import sourceOfVolume
from MedMAETrainLib.ProjectSplit import roleFor, subjectFor

IMAGE_FILE = "image.nrrd"
_CASE = "MedMAE.case"  # attribute of nodes


@dataclass
class Added:
    """What came of adding many.

    cases - The new ones.
    skipped - What was left out, by its name, and why.
    """

    cases: list[ProjectCase] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class CaseChoices:
    """What the user decides about a new case; None: it is decided for them.

    mapping - The label of segments by their names: a label of the project, a new one, or None to leave a segment out.
    role, subject - Of the case.
    className - Of the whole image.
    allowMissing - What is not drawn is not there to see.
    again - Add an image although it is a case already.
    """

    mapping: Mapping[str, str | None] | None = None
    role: str | None = None
    subject: str | None = None
    className: str | None = None
    allowMissing: bool = False
    again: bool = False


def addVolume(project: ProjectFolder, volumeNode: slicer.vtkMRMLVolumeNode,
              segmentationNode: slicer.vtkMRMLSegmentationNode | None, choices: CaseChoices,
              between: Callable[[], None]) -> ProjectCase:
    """Copy a volume and its segmentation into the project.

    Raises:
        ValueError: it cannot be a case, or is one already.
        medmae.errors.BadInput: its grid cannot be used, or the project cannot be written.
    """
    grid = gridOf(volumeNode)
    drawn = None if segmentationNode is None else matchSegments(project.labels, segmentationNode, choices.mapping)
    source = sourceOfVolume(volumeNode, between)
    source = dataclasses.replace(source, file=project.pathOf(source.file) if source.file else "")
    if not choices.again:
        refuseKnown(project, source)
    cases = project.path / CASES_FOLDER
    cases.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=cases))
    try:
        writeVolume(volumeNode, folder / IMAGE_FILE, between)
        identity = next(project.newCaseIds())
        case = ProjectCase(identity, *_subjectAndImage(project, source, choices, identity), source,
                           className=choices.className, modality=modalityOf(volumeNode) or guessModality(volumeNode))
        labels = project.labels
        if drawn is not None:
            saved = saveSegmentation(folder, 1, volumeNode, segmentationNode, drawn, grid, between)
            case, labels = withSegmentation(case, saved, "annotated", choices.allowMissing), drawn.labels
        role = choices.role or roleFor(case.subject, project.cases,
                                       "unlabelled" if case.label is None and case.className is None else "training")
        case = dataclasses.replace(case, role=role)
        folder.chmod(0o755)
        folder.rename(cases / identity)
        folder = cases / identity
        project.putCases([case], labels)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    markNodes(project, case, volumeNode, segmentationNode)
    return case


def withSegmentation(case: ProjectCase, saved: Any, state: str, allowMissing: bool) -> ProjectCase:
    """A case with what `saveSegmentation` has written. One that lacks labels is not annotated yet, unless they are
    allowed to be missing."""
    place = f"{CASES_FOLDER}/{case.id}"
    isComplete = saved.label is not None and (allowMissing or not saved.missing)
    return dataclasses.replace(
        case, segmentation=f"{place}/{saved.segmentation.name}", segments=saved.segments, notes=saved.notes,
        label=None if saved.label is None else f"{place}/{saved.label.name}", allowMissing=allowMissing,
        state=state if isComplete or (state == "predicted" and saved.label is not None) else "unannotated")


def addPairs(project: ProjectFolder, choices: CaseChoices, between: Callable[[], None],
             report: ProgressCallback) -> Added:
    """Add every volume of the scene that has a segmentation; one that cannot be added does not keep others out."""
    added = Added()
    pairs, unpaired = pairsOfScene()
    added.skipped += unpaired
    for number, (volumeNode, segmentationNode) in enumerate(pairs):
        name = volumeNode.GetName()
        report(number / len(pairs), name)
        names = segmentNames(segmentationNode)
        mapping = {segment: label for segment, label in (choices.mapping or {}).items() if segment in names}
        try:
            added.cases.append(addVolume(project, volumeNode, segmentationNode,
                                         dataclasses.replace(choices, mapping=mapping), between))
        except (ValueError, BadInput) as error:
            added.skipped.append((name, str(error)))
    return added


def pairsOfScene() -> tuple[list[tuple[Any, Any]], list[tuple[str, str]]]:
    """Volumes with the segmentation that refers to them; and the names of what has no partner, with the reason."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    volumes = imageVolumes()
    of: dict[str, list[Any]] = {}
    unpaired = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        reference = node.GetNodeReference(role)
        if node.GetHideFromEditors():
            continue
        if reference is None or reference not in volumes:
            unpaired.append((node.GetName(), _("It does not say which volume it belongs to. Add it together with its "
                                               "volume.")))
        else:
            of.setdefault(reference.GetID(), []).append(node)
    pairs = []
    for volume in volumes:
        segmentations = of.get(volume.GetID(), [])
        if len(segmentations) == 1:
            pairs.append((volume, segmentations[0]))
        elif segmentations:
            unpaired.append((volume.GetName(), _("It has {count} segmentations ({names}). Add it together with the "
                                                 "right one.").format(
                count=len(segmentations), names=", ".join(node.GetName() for node in segmentations))))
    return pairs, unpaired


def refuseKnown(project: ProjectFolder, source: Source) -> None:
    """Refuse an image that is a case already.

    Raises:
        ValueError: which case it is.
    """
    known = next((case for case in project.cases if case.source.isSameImage(source)), None)
    if known is not None:
        raise ValueError(knownText(source, known))


def knownText(source: Source, case: ProjectCase) -> str:
    """What is told when an image is to be added that is a case already."""
    return _("{image} is in the project already, as {case}. Save a new segmentation of it to this case.").format(
        image=source.name, case=case.id)


def markNodes(project: ProjectFolder, case: ProjectCase, *nodes: Any) -> None:
    """Remember on nodes of the scene which case they show."""
    for node in nodes:
        if node is not None:
            node.SetAttribute(_CASE, f"{project.uid}/{case.id}")


def caseOfNode(project: ProjectFolder, node: Any) -> ProjectCase | None:
    """The case that a node shows."""
    uid, _separator, identity = (node.GetAttribute(_CASE) or "").partition("/")
    return next((case for case in project.cases if uid == project.uid and case.id == identity), None)


def _subjectAndImage(project: ProjectFolder, source: Source, choices: CaseChoices, identity: str) -> tuple[str, str]:
    return (choices.subject or subjectFor(source.patient, project.cases), f"{CASES_FOLDER}/{identity}/{IMAGE_FILE}")
