"""Cases of a project are opened in the scene, and what was drawn on them is saved back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import slicer
import vtk
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.SegmentationImport import attachToVolume
from MedMAESegmentLib.Translation import tr as _
from MedMAESegmentLib.VolumeExport import voxels

from medmae.volumes import Geometry, read_image
from medmae.volumes.contents import read_geometry
from medmae.volumes.dicom_series import is_dicom_file
from medmae.volumes.terminology import to_slicer_text
from MedMAETrainLib.LabelExport import segmentNames
from MedMAETrainLib.ProjectCase import TRUTH, ProjectCase
from MedMAETrainLib.ProjectFolder import CASES_FOLDER, ProjectFolder
from MedMAETrainLib.ProjectImport import caseOfNode, markNodes, withSegmentation
from MedMAETrainLib.ProjectSegmentation import gridOf, matchSegments, saveSegmentation
from MedMAETrainLib.ProjectSource import database
from MedMAETrainLib.ProjectSplit import roleFor

# Options of vtkSlicerVolumesLogic; without the first, files beside an image that are numbered alike become its slices.
_SINGLE_FILE, _AUTO_WINDOW_LEVEL = 4, 8


def openCase(project: ProjectFolder, case: ProjectCase) -> tuple[Any, Any]:
    """Load a case: (vtkMRMLVolumeNode, vtkMRMLSegmentationNode). Nodes of the case that are in the scene are taken.

    Without a segmentation there is an empty segment for each label to draw into.

    Raises:
        ValueError: its files cannot be loaded.
    """
    volumeNode = _inScene(project, case, "vtkMRMLVolumeNode") or _loadImage(project, case)
    segmentationNode = _inScene(project, case, "vtkMRMLSegmentationNode")
    if segmentationNode is None:
        segmentationNode = _segmentation(project, case)
        attachToVolume(segmentationNode, volumeNode)
    markNodes(project, case, volumeNode, segmentationNode)
    return volumeNode, segmentationNode


def saveCase(project: ProjectFolder, segmentationNode: Any, volumeNode: Any, case: ProjectCase, state: str | None,
             mapping: Mapping[str, str | None] | None, allowMissing: bool | None,
             between: Callable[[], None]) -> ProjectCase:
    """Write a segmentation to its case; what was there before stays until the next time.

    Raises:
        ValueError: it cannot be used, or the volume is another one than that of the case.
        medmae.errors.BadInput: the project cannot be written.
    """
    known: dict[str, str | None] = {segment.name: segment.label for segment in case.segments
                                    if segment.name in segmentNames(segmentationNode)}
    drawn = matchSegments(project.labels, segmentationNode, {**known, **(mapping or {})})
    grid, hasSpacing = inBackground(lambda: _gridOfFile(project.file(case.image)), between)
    if not hasSpacing and voxels(volumeNode).shape[:3] == grid.shape:  # of a picture the numbers of voxels count alone
        grid = gridOf(volumeNode)
    folder = project.path / CASES_FOLDER / case.id
    folder.mkdir(parents=True, exist_ok=True)
    revision = 1 + _revisionOf(case.segmentation)
    saved = saveSegmentation(folder, revision, volumeNode, segmentationNode, drawn, grid, between)
    if state is None:
        state = "corrected" if case.state in ("predicted", "corrected") else "annotated"
    accepts = case.allowMissing if allowMissing is None else allowMissing
    case = withSegmentation(project.case(case), saved, state, accepts)  # as it is now: time has passed
    if case.role == "unlabelled" and case.state in TRUTH:
        case = dataclasses.replace(case, role=roleFor(case.subject, project.cases, "training"))
    project.putCases([case], drawn.labels)
    _removeOld(folder, revision - 1)
    markNodes(project, case, volumeNode, segmentationNode)
    return case


def _inScene(project: ProjectFolder, case: ProjectCase, className: str) -> Any | None:
    return next((node for node in slicer.util.getNodesByClass(className)
                 if (found := caseOfNode(project, node)) is not None and found.id == case.id), None)


def _loadImage(project: ProjectFolder, case: ProjectCase) -> Any:
    path = project.file(case.image)
    name = case.source.name or case.id
    node = _loadSeries(case.source.series) if path.is_dir() else None
    if node is None and path.exists():
        files = sorted(file for file in path.iterdir() if is_dicom_file(file)) if path.is_dir() else [path]
        names = _strings(files)
        options = _AUTO_WINDOW_LEVEL | (0 if path.is_dir() else _SINGLE_FILE)
        node = slicer.modules.volumes.logic().AddArchetypeVolume(str(files[0]), name, options, names) if files else None
    if node is None:
        raise ValueError(_("The image of {case}, {path}, cannot be loaded. Was it moved or removed?").format(
            case=case.id, path=path))
    if path.is_relative_to(project.path) and node.GetStorageNode() is not None:
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())  # saving the scene must not write into the project
    return node


def _strings(files: list[Path]) -> Any:
    """Paths as Slicer's logics take them."""
    names = vtk.vtkStringArray()
    for file in files:
        names.InsertNextValue(str(file))
    return names


def _loadSeries(uid: str) -> Any | None:
    """Load a series as Slicer's module DICOM does, where its database knows it."""
    dicom = database()
    if not uid or dicom is None or not dicom.filesForSeries(uid):
        return None
    from DICOMLib import DICOMUtils

    nodes = [slicer.mrmlScene.GetNodeByID(identity) for identity in DICOMUtils.loadSeriesByUID([uid])]
    return next((node for node in nodes if node is not None and node.IsA("vtkMRMLVolumeNode")), None)


def _segmentation(project: ProjectFolder, case: ProjectCase) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{case.source.name or case.id} segmentation")
    node.CreateDefaultDisplayNodes()
    if case.segmentation is None:
        for label in project.labels:
            identity = node.GetSegmentation().AddEmptySegment("", label.name, label.color)
            segment = node.GetSegmentation().GetSegment(identity)
            if label.terminology is not None:
                segment.SetTag(segment.GetTerminologyEntryTagName(), to_slicer_text(label.terminology))
        return node
    storage = slicer.vtkMRMLSegmentationStorageNode()  # not in the scene: saving that must not write into the project
    storage.SetFileName(str(project.file(case.segmentation)))
    if not storage.ReadData(node, True):
        slicer.mrmlScene.RemoveNode(node)
        raise ValueError(_("The segmentation of {case}, {path}, cannot be loaded.").format(
            case=case.id, path=project.file(case.segmentation)))
    return node


def _gridOfFile(path: Path) -> tuple[Geometry, bool]:
    """The grid of an image file, and whether it is in millimetres."""
    grid = read_geometry(path)
    if grid is not None:
        return grid, True
    volume = read_image(path)
    return volume.geometry, volume.spacing_known


def _revisionOf(segmentation: str | None) -> int:
    return 0 if segmentation is None else int(Path(segmentation).name.split(".")[0].rpartition("-")[2])


def _removeOld(folder: Path, kept: int) -> None:
    """Remove what is older than the state before the last, which the project's backup refers to."""
    for pattern in ("segmentation-*.seg.nrrd", "label-*.nrrd"):
        for file in folder.glob(pattern):
            if _revisionOf(file.name) < kept:
                file.unlink(missing_ok=True)
