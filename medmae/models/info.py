"""What a model says about itself: the content of ``model.json``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from medmae.networks.presets import Task

LABEL_KEYS = {"name", "value", "color", "terminology"}
CHANNEL_KEYS = {"name", "modality"}
POSTPROCESSING_STEPS = ("largest_component", "fill_holes")
LARGEST_WINDOW = 2**27  # voxels, as 512 x 512 x 512: images are padded to it, so a stranger's model must not say any


@dataclass(frozen=True)
class ModelInfo:
    """Everything about a model but its weights; strict JSON through `medmae.config`.

    Attributes:
        name: what people call it.
        task: "encoder" (holds encoder, decoder and mask token), "segmentation" or "classification".
        method: pretraining method of the encoder, "vis-mae" or "gl-mae".
        preset: size of the network.
        architecture: what `medmae.networks.build_network` builds.
        spatial_dims: 2 or 3.
        channels: one {"name", "modality"} for each channel of the network's input, in order: the channels of the slice
            `context` before, ..., of the slice itself, ..., of the slice `context` behind.
        context: neighbouring slices that a 2-D network sees on each side as further channels.
        labels: one {"name", "value", "color", "terminology"} for each class; the index is the network's class, the
            value is what result files store; segmentation has background at index 0. Colours are (r, g, b) in 0..1.
        multi_label: whether several classes of a classification may apply together, or none; each class then has its
            own probability.
        slice_pooling: how a 2-D classification model makes one answer of the slices of a volume: "mean", "max" or
            "top25%" (`medmae.inference.pooling`).
        calibration: of a classification model, {"temperature", "cases", ...} as `medmae.metrics.Calibration` has it;
            empty where its probabilities were never calibrated.
        postprocessing: what is done with the labels of a segmentation model, {"largest_component": [names],
            "fill_holes": [names]} (`medmae.inference.outputs.components`); empty: nothing.
        modality: DICOM code of the (first) channel.
        orientation: axes of the network's input, in which i, j, k increase ("RAS" in 3-D, "LPS" in 2-D).
        spacing_mm: voxel size (k, j, i) of the network's input; None = as stored (3-D), or fitted by the longest side.
        input_size: voxels (k, j, i) or pixels (rows, cols) of the network's window.
        intensity: normalisation, as `medmae.datasets.preprocessing` reads it.
        training: summary of the training: counts, settings, and the ranges seen.
        scores: measured scores, with the list they were measured on.
        licence, citation: of the weights; free text.
        medmae: version that wrote the model.
        created: ISO 8601 time.
        weights_sha256: of weights.safetensors; filled in by `save_model`.
    """

    name: str
    task: Task
    method: str
    preset: str
    architecture: dict[str, Any]
    spatial_dims: Literal[2, 3]
    channels: list[dict[str, Any]]
    input_size: list[int]
    labels: list[dict[str, Any]] = field(default_factory=list)
    multi_label: bool = False
    slice_pooling: str = "mean"
    calibration: dict[str, Any] = field(default_factory=dict)
    postprocessing: dict[str, Any] = field(default_factory=dict)
    modality: str = ""
    orientation: str = "RAS"
    spacing_mm: list[float] | None = None
    context: int = 0
    intensity: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    medmae: str = ""
    created: str = ""
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", list(self.input_size))
        if self.spacing_mm is not None:
            object.__setattr__(self, "spacing_mm", [float(value) for value in self.spacing_mm])
        problems = [*self._size_problems(), *self._label_problems(), *self._architecture_problems()]
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def image_channels(self) -> int:
        """Channels of the images that the model takes; the network sees those of 2 * context + 1 slices."""
        return len(self.channels) // (2 * self.context + 1)

    @property
    def flip_axes(self) -> tuple[int, ...] | None:
        """The spatial axes of images along which training mirrored them; None where the model does not tell."""
        told = self.training.get("flip_axes")
        return tuple(axis for axis in range(self.spatial_dims) if axis in told) if isinstance(told, list) else None

    def _size_problems(self) -> list[str]:
        problems = []
        if not self.name.strip():
            problems.append("the name is empty")
        if len(self.input_size) != self.spatial_dims or min(self.input_size, default=0) < 1:
            problems.append(f"input_size {self.input_size} is not {self.spatial_dims} positive numbers")
        elif math.prod(self.input_size) > LARGEST_WINDOW:
            problems.append(f"input_size {self.input_size} is more than {LARGEST_WINDOW} voxels")
        if self.spacing_mm is not None and (len(self.spacing_mm) != 3 or not all(
                0 < value < math.inf for value in self.spacing_mm)):
            problems.append(f"spacing_mm {self.spacing_mm} is not three positive numbers")
        if not is_axis_code(self.orientation):
            problems.append(f"orientation {self.orientation!r} does not name three axes, as RAS does")
        if not self.channels:
            problems.append("there are no channels")
        if self.context < 0 or (self.context and self.spatial_dims == 3):
            problems.append(f"context {self.context} is not usable: only 2-D networks see neighbouring slices")
        elif len(self.channels) % (2 * self.context + 1):
            problems.append(f"{len(self.channels)} channels are not those of {2 * self.context + 1} slices "
                            f"(context {self.context})")
        problems += [f"a channel has the unknown key {key}" for channel in self.channels
                     for key in sorted(set(channel) - CHANNEL_KEYS)]
        return problems

    def _label_problems(self) -> list[str]:
        problems = []
        for label in self.labels:
            problems += [f"a label has the unknown key {key}" for key in sorted(set(label) - LABEL_KEYS)]
            if not isinstance(label.get("name"), str) or not isinstance(label.get("value"), (int, str)):
                problems.append(f"the label {label} lacks a name or a value")
            elif isinstance(label["value"], int) and not -(2**31) <= label["value"] < 2**31:
                problems.append(f"the label {label['name']} has a value that no file of labels can hold")
            if not _is_colour(label.get("color", (0, 0, 0))):
                problems.append(f"the label {label.get('name')} has a colour that is not three numbers from 0 to 1")
        for key in ("name", "value"):
            present = [label.get(key) for label in self.labels]
            if len(set(map(repr, present))) < len(present):
                problems.append(f"two labels have the same {key}")
        if self.task != "encoder" and len(self.labels) < (1 if self.multi_label else 2):
            problems.append(f"a {self.task} model needs two labels at least")
        return problems + self._postprocessing_problems() + self._classification_problems()

    def _postprocessing_problems(self) -> list[str]:
        known = {label.get("name") for label in self.labels[1:]} if self.task == "segmentation" else set()
        problems = []
        for step, names in self.postprocessing.items():
            if step not in POSTPROCESSING_STEPS:
                problems.append(f"the postprocessing has the unknown key {step}; there are "
                                f"{', '.join(POSTPROCESSING_STEPS)}")
            elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                problems.append(f"the postprocessing {step} is not a list of names of labels")
            else:
                problems += [f"the postprocessing {step} names {name}, which is no foreground label"
                             for name in names if name not in known]
        return problems

    def _classification_problems(self) -> list[str]:
        problems = []
        if self.multi_label and self.task != "classification":
            problems.append(f"multi_label is for classification, but the task is {self.task}")
        if not is_pooling(self.slice_pooling):
            problems.append(f"slice_pooling {self.slice_pooling!r} is not mean, max or topN% (N from 1 to 100)")
        temperature = self.calibration.get("temperature", 1.0)
        if not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
            problems.append(f"the temperature {temperature!r} of the calibration is not a positive number")
        cases = self.calibration.get("cases", 0)
        if not isinstance(cases, int) or (cases and "temperature" not in self.calibration):
            problems.append("the calibration does not say which temperature was fitted to how many cases")
        return problems

    def _architecture_problems(self) -> list[str]:
        arguments = self.architecture.get("arguments")
        if not isinstance(self.architecture.get("name"), str) or not isinstance(arguments, dict):
            return ["the architecture lacks a name or arguments"]
        problems = []
        if arguments.get("channels") != len(self.channels):
            problems.append(f"the network has {arguments.get('channels')} channels, but {len(self.channels)} are named")
        if self.task != "encoder" and arguments.get("classes") != len(self.labels):
            problems.append(f"the network has {arguments.get('classes')} classes, but {len(self.labels)} are named")
        return problems


def _is_colour(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(
        isinstance(part, (int, float)) and 0 <= part <= 1 for part in value)


def is_pooling(text: str) -> bool:
    """Whether `text` names a way to pool slices: "mean", "max" or "topN%" with N from 1 to 100."""
    return text in ("mean", "max") or re.fullmatch("top([1-9][0-9]?|100)%", text) is not None


def is_axis_code(text: str) -> bool:
    """Whether three letters name three axes of the patient, as RAS does."""
    pairs = [{"R", "L"}, {"A", "P"}, {"S", "I"}]
    return len(text) == 3 and all(len(pair & set(text)) == 1 for pair in pairs)
