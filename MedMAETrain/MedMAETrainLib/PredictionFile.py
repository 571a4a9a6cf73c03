"""What a model has drawn on a case, on its way into the project; files of its own, never those of what people drew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from MedMAESegmentLib.Translation import tr as _

from medmae.volumes import read_label, write_label
from MedMAETrainLib.PredictionLabels import LabelMatch
from MedMAETrainLib.ProjectCase import PREDICTION, TRUTH, CaseSegment, ProjectCase
from MedMAETrainLib.ProjectFolder import CASES_FOLDER
from MedMAETrainLib.ProjectThumbnail import THUMBNAIL, writeThumbnail

_LABEL = f"{PREDICTION}label-"


def isPrediction(case: ProjectCase) -> bool:
    """Whether the segmentation of a case is one that was put there by a model and that nobody has saved since."""
    return case.state == "predicted" and case.isDrawnByModel


def mayPredict(case: ProjectCase) -> bool:
    """Whether a model may draw on a case: not where a person has drawn, be it a part only."""
    return case.state not in TRUTH and (case.segmentation is None or isPrediction(case))


def writePrediction(folder: Path, case: ProjectCase, image: Path, labels: Path, match: LabelMatch) -> ProjectCase:
    """Write the label map of a model into the folder of a case, and return the case with it. Reads and writes voxels,
    so it is called in a thread; what else lies in the folder stays.

    Raises:
        medmae.errors.BadInput: the label map cannot be read.
        OSError: the files cannot be written.
    """
    volume = read_label(labels)
    array, geometry = _valuesOf(volume.array[0], match), volume.geometry
    number = 1 + max((_numberOf(path) for path in folder.glob(f"{PREDICTION}*")), default=0)
    shown = [label for label in match.labels if label.value in match.values.values()]
    counts = np.bincount(array.ravel(), minlength=1 + max(label.value for label in match.labels))
    segments = tuple(CaseSegment(label.name, label.name, int(counts[label.value])) for label in shown)
    folder.mkdir(parents=True, exist_ok=True)
    name, labelName = f"{PREDICTION}{number:04d}.seg.nrrd", f"{_LABEL}{number:04d}.nrrd"
    write_label(folder / labelName, array, geometry, [], "nrrd")
    write_label(folder / name, array, geometry, shown, "seg.nrrd")
    writeThumbnail(folder / f"{PREDICTION}{number:04d}.png", image, folder / labelName, match.labels)
    empty = [segment.name for segment in segments if not segment.voxels]
    found = [_("No voxel of {labels}.").format(labels=", ".join(empty))] if empty else []
    place = f"{CASES_FOLDER}/{case.id}"
    return dataclasses.replace(case, state="predicted", segmentation=f"{place}/{name}", label=f"{place}/{labelName}",
                               segments=segments, notes=(*match.notes, *found))


def takeThumbnail(folder: Path, case: ProjectCase) -> None:
    """Make the picture of a prediction that of the case."""
    picture = _pictureOf(folder, case)
    if picture.exists():
        picture.replace(folder / THUMBNAIL)


def discardPrediction(folder: Path, case: ProjectCase) -> None:
    """Remove the files of a prediction that was not taken; earlier ones may be what a person has accepted."""
    for path in (case.segmentation, case.label):
        assert path is not None
        (folder / Path(path).name).unlink(missing_ok=True)
    _pictureOf(folder, case).unlink(missing_ok=True)


def removePredictions(folder: Path, kept: Sequence[str | None]) -> None:
    """Remove the predictions of a case but those that are named."""
    names = {Path(path).name for path in kept if path is not None}
    for file in folder.glob(f"{PREDICTION}*"):
        if file.name not in names:
            file.unlink(missing_ok=True)


def _pictureOf(folder: Path, case: ProjectCase) -> Path:
    assert case.segmentation is not None
    return folder / f"{Path(case.segmentation).name.split('.')[0]}.png"


def _valuesOf(array: np.ndarray, match: LabelMatch) -> np.ndarray:
    """The values of the project for those of the model, which may be any whole numbers."""
    kind = np.uint8 if max(match.values.values()) < 256 else np.int16
    result = np.zeros(array.shape, kind)
    for stored, value in match.values.items():
        result[array == stored] = value
    return result


def _numberOf(path: Path) -> int:
    number = path.name.split(".")[0].rpartition("-")[2]
    return int(number) if number.isdigit() else 0
