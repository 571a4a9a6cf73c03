"""The dataset.json of a project: all that the engine sees of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.files import write_json
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectFolder import ProjectFolder

DATASET_FILE = "dataset.json"
SCORED = ("training", "validation", "test")  # lists whose cases have labels


def writeDataset(project: ProjectFolder, task: str = "segmentation", *, file: Path | None = None,
                 modality: str | None = None, allowMissing: bool = False) -> Path:
    """Write what the engine reads: dataset.json in the project's folder, or another `file` that names all files with
    whole paths.

    :param task: "segmentation": cases with a segmentation of a person are trained on and scored. "classification":
      cases with a class. "pretraining": the images alone. Other cases are unlabelled images, except those for
      validation and test.
    :param modality: DICOM code; default: what most cases are.
    :param allowMissing: what annotated cases lack of the labels is not there to see, instead of not drawn yet.
    :raises ValueError: there is nothing to train on; every problem in one message.
    """
    content = datasetOf(project, task, modality=modality, allowMissing=allowMissing, whole=file is not None)
    path = file or project.path / DATASET_FILE
    write_json(path, content)
    return path


def datasetOf(project: ProjectFolder, task: str = "segmentation", *, modality: str | None = None,
              allowMissing: bool = False, whole: bool = False) -> dict[str, Any]:
    """The content of dataset.json; `whole`: with absolute paths. See `writeDataset`."""
    if task not in ("segmentation", "classification", "pretraining"):
        raise ValueError(_("The task must be segmentation, classification or pretraining."))
    lists: dict[str, list[ProjectCase]] = {"training": [], "validation": [], "test": [], "unlabeled": []}
    for case in project.cases:
        if _isLabelled(case, task):
            lists[case.role if case.role in lists else "unlabeled"].append(case)
        elif case.role in ("training", "unlabelled"):
            lists["unlabeled"].append(case)
    content: dict[str, Any] = {"name": project.name, "channel_names": {"0": modality or modalityOf(project)}}
    if task == "segmentation":
        _refuseMissing(project, [case for key in SCORED for case in lists[key]], allowMissing)
        labels = sorted(project.labels, key=lambda label: label.value)
        content |= {"task": task, "labels": {"background": 0, **{label.name: label.value for label in labels}},
                    "looks": {label.name: {"color": list(label.color), "terminology": label.terminology}
                              for label in labels}}
    elif task == "classification":
        _refuseOneClass(lists["training"])
        content |= {"task": task, "labels": {name: value for value, name in enumerate(project.classes)}}
    elif not lists["unlabeled"]:
        raise ValueError(_("The project has no images to learn from. Add images first."))
    for key, cases in lists.items():
        if cases:
            labelled = task if key in SCORED else "pretraining"
            content[key] = [_item(project, case, labelled, whole) for case in cases]
    return content


def modalityOf(project: ProjectFolder) -> str:
    """What most cases are; "OT", DICOM's code for "other", where nobody knows."""
    found = Counter(case.modality for case in project.cases if case.modality)
    return found.most_common(1)[0][0] if found else "OT"


def _isLabelled(case: ProjectCase, task: str) -> bool:
    if task == "segmentation":
        return case.isAnnotated and case.role != "unlabelled"
    return task == "classification" and case.className is not None and case.role != "unlabelled"


def _item(project: ProjectFolder, case: ProjectCase, task: str, whole: bool) -> dict[str, Any]:
    def place(path: str) -> str:
        return str(project.file(path)) if whole else path

    item = {"id": case.id, "image": place(case.image), "subject": case.subject}
    if task == "segmentation" and case.label is not None:
        item["label"] = place(case.label)
    elif task == "classification" and case.className is not None:
        item["label"] = case.className
    return item


def _refuseMissing(project: ProjectFolder, cases: Sequence[ProjectCase], allowMissing: bool) -> None:
    training = [case for case in cases if case.role == "training"]
    if not training:
        raise ValueError(_("No case of the project can be trained on: annotate some that are used for training."))
    lacks = _("{case} has no voxel of {labels}.")
    problems = [lacks.format(case=case.id, labels=", ".join(missing)) for case in cases
                if not (allowMissing or case.allowMissing)
                and (missing := [label.name for label in project.labels if label.name not in case.voxels])]
    if problems:
        raise ValueError("\n".join(problems) + "\n" + _(
            "Draw what is missing, or say that there is none of it to see: Change > Nothing more to draw."))
    unseen = [label.name for label in project.labels if all(label.name not in case.voxels for case in training)]
    if unseen:
        raise ValueError(_("No case for training shows {labels}. Annotate one, or remove the label.").format(
            labels=", ".join(unseen)))


def _refuseOneClass(training: Sequence[ProjectCase]) -> None:
    if len({case.className for case in training}) < 2:
        raise ValueError(_("Cases for training of two classes are needed at least. Give cases their classes."))
