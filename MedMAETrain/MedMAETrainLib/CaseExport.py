"""Volumes and segmentations of the scene as a dataset of the engine: voxels, geometry, neutral names, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from MedMAESegmentLib.VolumeExport import networkGeometry, voxels, writeNrrd, writeVolume

from medmae.files import write_json
from medmae.volumes.terminology import from_slicer_text
from MedMAETrainLib.LabelExport import Label, labelArray, segmentByName, segmentNames

CasePair = tuple[Any, Any]  # (vtkMRMLVolumeNode, vtkMRMLSegmentationNode)


def collectLabels(cases: Sequence[CasePair], allowMissing: bool = False) -> list[Label]:
    """The labels of all cases, in the order in which their names first appear; values from 1.

    Names decide: the segment "liver" of every case gets the same value, whatever its ID or position.

    Raises:
        ValueError: cases cannot be used; one message lists every problem of every case that needs no voxels.
    """
    if not cases:
        raise ValueError("No cases were given. Add at least one volume with its segmentation.")
    if isinstance(cases, str) or not all(isinstance(case, Sequence) and len(case) == 2 for case in cases):
        raise ValueError("Each case is a pair: (volumeNode, segmentationNode).")
    problems = _repeated(cases)
    labels: dict[str, Label] = {}
    namesOfCase: list[list[str]] = []
    for number, (volumeNode, segmentationNode) in enumerate(cases, 1):
        problems += _volumeProblems(number, volumeNode)
        names = segmentNames(segmentationNode)
        namesOfCase.append(names)
        if not names:
            problems.append(f"Case {number}: there is no segmentation, or it has no segments.")
        problems += [f"Case {number} has {names.count(name)} segments named {name}; merge or rename them."
                     for name in dict.fromkeys(names) if name and names.count(name) > 1]
        if "" in names:
            problems.append(f"Case {number} has a segment without a name; segments are matched by their names.")
        problems += [f"Case {number} has a segment named {name}: what no segment covers is background already. Remove "
                     "or rename it." for name in names if name.casefold() == "background"]
        for name in names:
            segment = segmentByName(segmentationNode, name)
            labels.setdefault(name, Label(name, len(labels) + 1, tuple(segment.GetColor()), terminologyText(segment)))
    if not allowMissing:
        problems += [f"Case {number} has no segment named {name}, which other cases have. Was it named differently?"
                     for number, names in enumerate(namesOfCase, 1) for name in labels if names and name not in names]
    _refuse(problems)
    return list(labels.values())


def exportDataset(cases: Sequence[CasePair], folder: Path, modality: str, *, allowMissing: bool = False,
                  report: Callable[[float, str], Any] = lambda _fraction, _message: None,
                  between: Callable[[], None] = lambda: None) -> tuple[Path, list[Label]]:
    """Write all cases and their dataset.json into `folder`; returns the file and the labels.

    Files are named case_001 and so on. Cases whose volumes stand under the same patient in the subject hierarchy
    share a subject, so that one patient never stands on both sides of a split. `between` is called often.

    Raises:
        ValueError: cases cannot be used; one message lists every problem of every case.
    """
    labels = collectLabels(cases, allowMissing)
    subjects = neutralSubjects([volumeNode for volumeNode, _ in cases])
    problems: list[str] = []
    seen: set[int] = set()
    items = []
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number, (volumeNode, segmentationNode) in enumerate(cases, 1):
        report((number - 1) / len(cases), f"Handing over case {number} of {len(cases)}")
        between()
        array, found = labelArray(volumeNode, segmentationNode, labels, between)
        seen.update(np.flatnonzero(np.bincount(array.ravel(), minlength=len(labels) + 1)).tolist())
        if allowMissing:
            found = [problem for problem in found if "is empty" not in problem]
        problems += [f"Case {number} ({volumeNode.GetName()}): {problem}." for problem in found]
        name = f"case_{number:03d}"
        image, label = f"images/{name}.nrrd", f"labels/{name}.nrrd"
        if not problems:
            writeVolume(volumeNode, folder / image, between)
            writeNrrd(folder / label, array, networkGeometry(volumeNode), between)
        items.append({"id": name, "image": image, "label": label, "subject": subjects[number - 1]})
    if allowMissing and not problems:
        problems += [f"No case shows the segment {label.name}." for label in labels if label.value not in seen]
    _refuse(problems)
    path = folder / "dataset.json"
    write_json(path, {
        "name": "annotated in 3D Slicer", "task": "segmentation", "channel_names": {"0": modality},
        "labels": {"background": 0, **{label.name: label.value for label in labels}},
        "looks": {label.name: {"color": list(label.color), "terminology": from_slicer_text(label.terminology)}
                  for label in labels},
        "training": items})
    return path, labels


def guessModality(volumeNode: slicer.vtkMRMLVolumeNode) -> str:
    """The DICOM code that decides the default normalisation: air at -1000 tells CT, one grey slice tells an X-ray."""
    array = voxels(volumeNode)
    if array.ndim == 4:
        return "US"
    if len(array) == 1:
        return "DX"
    return "CT" if float(array[:: max(1, len(array) // 16)].min()) <= -500 else "MR"


def neutralSubjects(volumeNodes: Sequence[slicer.vtkMRMLVolumeNode]) -> list[str]:
    """A neutral subject name for each volume: the same under the same patient, and for the same volume; else one each.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    names: dict[Any, str] = {}
    subjects = []
    for node in volumeNodes:
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        patient = hierarchy.GetItemAncestorAtLevel(item, level) if item else 0
        key = ("patient", patient) if patient else ("volume", node.GetID())
        subjects.append(names.setdefault(key, f"subject_{len(names) + 1:03d}"))
    return subjects


def _repeated(cases: Sequence[CasePair]) -> list[str]:
    first: dict[CasePair, int] = {}
    problems = []
    for number, (volumeNode, segmentationNode) in enumerate(cases, 1):
        same = first.setdefault((volumeNode, segmentationNode), number)
        if same != number:
            problems.append(f"Case {number} is the same as case {same}; remove one of them.")
    return problems


def _volumeProblems(number: int, volumeNode: Any) -> list[str]:
    try:
        voxels(volumeNode)
    except ValueError as error:
        return [f"Case {number}: {error}"]
    return []


def terminologyText(segment: slicer.vtkSegment) -> str:
    """The terms of a segment as Slicer writes them; "": it has none."""
    tag = vtk.reference("")
    return str(tag) if segment.GetTag(segment.GetTerminologyEntryTagName(), tag) else ""


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("The cases cannot be used for training:\n- " + "\n- ".join(problems)
                         + "\nCorrect the segmentations and start again.")
