"""A dataset: lists of cases, their label names and their few-label subsets, read from a ``dataset.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medmae.errors import BadInput

Task = Literal["segmentation", "classification"]
ClassValue = int | str | tuple[int | str, ...]


@dataclass(frozen=True)
class Case:
    """One case: an image of one or several channel files, and what is known about it.

    Attributes:
        id: unique in the dataset; the image path as written there, without extension, unless the file gives one.
        images: absolute paths, one for each channel file (a DICOM folder is one path).
        label: absolute path of the label map (segmentation), or None.
        class_value: stored value of the class, a tuple of stored values when several classes may apply, or None.
            ``load_dataset`` replaces class names by their stored values.
        subject: whom the image shows; the case's id where the file does not say.
        modality: DICOM code of this image where the file gives one to the item; "" otherwise.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    class_value: ClassValue | None = None
    subject: str = ""
    modality: str = ""

    def __post_init__(self) -> None:
        if not self.subject:
            object.__setattr__(self, "subject", self.id)

    @property
    def is_labelled(self) -> bool:
        """Whether a label map or a class is given."""
        return self.label is not None or self.class_value is not None


@dataclass(frozen=True)
class Dataset:
    """What a ``dataset.json`` says.

    Attributes:
        path: the file.
        name: its name, or that of its folder.
        task: what the labels are for; None when no case has a label.
        modalities: one DICOM code for each channel (CT, MR, PT, DX, US, ...).
        channel_names: the channels as the file names them.
        looks: how people see labels, by name: {"color": [red, green, blue] in 0..1, "terminology": {...} or None} (see
            `medmae.volumes.terminology`); labels that the file says nothing of are left out.
        draws: seed to ids of training cases in the order in which few-label draws take them, where the file settles
            it: one whose cases were renamed, as it goes to another computer, draws as the original does.
        labels: name to stored value, in the order of the network's classes: ascending values, and for segmentation
            the background first (added as 0 where the file leaves it out).
        lists: the case lists: training, validation, test, unlabeled and any other.
        subsets: name to image paths as written in the file.
    """

    path: Path
    name: str
    task: Task | None
    modalities: tuple[str, ...]
    labels: dict[str, int]
    lists: dict[str, tuple[Case, ...]]
    subsets: dict[str, tuple[str, ...]]
    channel_names: tuple[str, ...] = ()
    draws: dict[str, tuple[str, ...]] = field(default_factory=dict)
    looks: dict[str, dict[str, Any]] = field(default_factory=dict)
    _subset_ids: dict[str, tuple[str, ...]] | None = None

    def cases(self, key: str) -> tuple[Case, ...]:
        """The cases of one list.

        Raises:
            BadInput: there is no such list.
        """
        if key not in self.lists:
            raise BadInput(f"The dataset {self.path} has no list '{key}'. Its lists are: {_names(self.lists)}.")
        return self.lists[key]

    def subset(self, name: str, key: str = "training") -> tuple[Case, ...]:
        """The cases of a named subset of the list `key`, in the order of the subset.

        Raises:
            BadInput: there is no such subset, or it names cases that are not in that list.
        """
        if name not in self.subsets:
            raise BadInput(f"The dataset {self.path} has no subset '{name}'. Its subsets are: {_names(self.subsets)}.")
        by_id = {case.id: case for case in self.cases(key)}
        ids = (self._subset_ids or self.subsets)[name]
        outside = [identifier for identifier in ids if identifier not in by_id]
        if outside:
            raise BadInput(f"The subset '{name}' of {self.path} names {len(outside)} cases that are not in the list "
                           f"'{key}' ({', '.join(outside[:5])}{', ...' if len(outside) > 5 else ''}). "
                           "Take them out of the subset, or choose the list that holds them.")
        return tuple(by_id[identifier] for identifier in ids)

    def settled_draw(self, n: int, seed: int) -> tuple[Case, ...]:
        """The `n` training cases that the file settles for `seed`; () where it does not."""
        ids = self.draws.get(str(seed), ())[:n]
        by_id = {case.id: case for case in self.lists.get("training", ())}
        return tuple(by_id[identifier] for identifier in ids) if len(ids) == n else ()

    @property
    def background(self) -> str | None:
        """Name of the background label of a segmentation dataset."""
        return next(iter(self.labels), None) if self.task == "segmentation" else None

    @property
    def foreground(self) -> dict[str, int]:
        """The labels that are scored: all but the background."""
        return {name: value for name, value in self.labels.items() if name != self.background}

    @property
    def class_of_value(self) -> dict[int, int]:
        """Stored value to the index of the network's class."""
        return {value: index for index, value in enumerate(self.labels.values())}


def load_dataset(path: Path | str) -> Dataset:
    """Read a ``dataset.json`` (or a folder that holds one) strictly; no image is opened.

    The form is that of the Medical Segmentation Decathlon and of MONAI data lists: ``labels`` as name to value or value
    to name, ``modality`` or ``channel_names``, and lists of items ``{image, label, subject?, id?}`` or plain paths,
    relative to the file. ``looks`` gives labels the colours and terms of the model that is trained on them. An item may
    state a ``modality`` of its own, for pretraining on images of several.

    Raises:
        BadInput: the file cannot be used; the message lists all its problems.
    """
    from medmae.datasets.dataset_file import parse_dataset

    return parse_dataset(Path(path))


def _names(mapping: dict) -> str:
    return ", ".join(map(str, mapping)) or "none"
