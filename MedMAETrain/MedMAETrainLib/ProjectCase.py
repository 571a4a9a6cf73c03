"""What a project knows of a case, of where it comes from, and of the runs and models that were made from the cases."""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("training", "validation", "test", "unlabelled")
STATES = ("unannotated", "annotated", "predicted", "corrected")
PREDICTION = "prediction-"  # begins the names of files that a model has drawn
TRUTH = ("annotated", "corrected")  # states in which a person stands for the segmentation


def isTraining(role: str) -> bool:
    """On which side of a split a role is: images for pretraining are seen by training, too."""
    return role in ("training", "unlabelled")


@dataclass(frozen=True)
class CaseSegment:
    """A segment of a case's segmentation.

    name - What its author calls it.
    label - The project's label that it is; None: it is not trained on.
    voxels - How many voxels of the image it covers in the label map; 0 also for what is not trained on.
    """

    name: str
    label: str | None
    voxels: int = 0


@dataclass(frozen=True)
class Source:
    """Where an image comes from; it never leaves this computer. What is unknown is "".

    kind - "scene", "file" or "dicom".
    name - What the user knows it by.
    file - The file, or the folder of DICOM files.
    series - DICOM series UID.
    patient - What tells the patient apart from others; equal for equal patients.
    digest - SHA-256 of voxels and geometry of a volume of the scene.
    """

    kind: str
    name: str = ""
    file: str = ""
    series: str = ""
    patient: str = ""
    digest: str = ""

    def isSameImage(self, other: Source) -> bool:
        """Whether both are the same image. One series may be several volumes of a scene, which their voxels tell apart.
        """
        for name in ("digest", "series", "file"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs:
                return mine == theirs
        return False


@dataclass(frozen=True)
class ProjectCase:
    """A case. Paths are relative to the project's folder where they lie in it, absolute otherwise.

    id - Neutral: "case-0001".
    subject - Neutral name of the patient: cases of one subject never stand on both sides of a split.
    image - A file, or a folder with the files of a DICOM series.
    segmentation - What the user has drawn, .seg.nrrd; None: nothing yet.
    label - The same as a label map on the image's voxels, for the engine; None: not usable as one.
    segments - Of the segmentation.
    role - "training", "validation", "test" or "unlabelled".
    state - "unannotated", "annotated", "predicted" (by a model) or "corrected" (a prediction, by the user).
    className - The class of the whole image; None: none was given.
    modality - DICOM code; "": unknown.
    allowMissing - Labels that the segmentation lacks are not there to see, instead of not drawn yet.
    notes - What the user was told about the segmentation.
    """

    id: str
    subject: str
    image: str
    source: Source
    segmentation: str | None = None
    label: str | None = None
    segments: tuple[CaseSegment, ...] = ()
    role: str = "unlabelled"
    state: str = "unannotated"
    className: str | None = None
    modality: str = ""
    allowMissing: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"the role {self.role!r} is none of {', '.join(ROLES)}")
        if self.state not in STATES:
            raise ValueError(f"the state {self.state!r} is none of {', '.join(STATES)}")

    @property
    def isAnnotated(self) -> bool:
        """Whether there is a label map that training may learn from."""
        return self.label is not None and self.state in TRUTH

    @property
    def isDrawnByModel(self) -> bool:
        """Whether nobody has saved the segmentation since a model has put it there."""
        return self.segmentation is not None and self.segmentation.rpartition("/")[2].startswith(PREDICTION)

    @property
    def voxels(self) -> dict[str, int]:
        """The voxels of each label that the case shows."""
        counted: dict[str, int] = {}
        for segment in self.segments:
            if segment.label is not None and segment.voxels:
                counted[segment.label] = counted.get(segment.label, 0) + segment.voxels
        return counted


@dataclass(frozen=True)
class ProjectRun:
    """A run that learns from the project.

    id - The name of its folder among MedMAE's runs.
    task - "segmentation" or "classification".
    cases - The ids of the cases that it was given.
    started - ISO 8601.
    encoder - What it started from; "none": from scratch.
    model - The name of its model in the list; None: it has none yet.
    """

    id: str
    task: str
    cases: tuple[str, ...]
    started: str
    encoder: str = "none"
    model: str | None = None


@dataclass(frozen=True)
class ProjectModel:
    """A model that was made from the project: its name in the list of models, and its run."""

    name: str
    run: str
