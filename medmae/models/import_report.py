"""What a person may add to a foreign checkpoint, and what is said about every tensor of it. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from medmae.errors import BadInput
from medmae.models.checkpoint_files import AGAIN
from medmae.models.info import ModelInfo, is_axis_code
from medmae.models.labels import model_labels
from medmae.networks.build import build_network
from medmae.volumes import Intensity

PLAIN_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LOADED_ORIENTATION = "SAR"  # MONAI's loaders give arrays (right, anterior, superior): i is their last axis
PositionChoice = Literal["table", "computed"]


@dataclass(frozen=True)
class ImportOptions:
    """What a person may add to what a checkpoint says; a format refuses what it has no use for.

    name: of the model (default: that of its folder); channels: 1 folds the stem, None keeps the checkpoint's number;
    modality: DICOM code of the training images, "" where they were mixed or unknown; labels: names in class order;
    input_side: voxels of a side of the window; intensity_range: the stored values that become 0 and 1.

    Of vision transformers: weights: "student" or "teacher" where a checkpoint has both; heads, decoder_heads: of the
    attention, which no tensor shows; grid: tokens (k, j, i) of the table of positions; positions: keep that table, or
    compute positions; orientation: the axes of the network's input.
    """

    name: str | None = None
    channels: int | None = None
    modality: str = ""
    labels: tuple[str, ...] = ()
    input_side: int | None = None
    intensity_range: tuple[float, float] | None = None
    weights: str | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    grid: tuple[int, int, int] | None = None
    positions: PositionChoice = "table"
    orientation: str | None = None


TRANSFORMER_OPTIONS = ("weights", "heads", "decoder_heads", "grid", "orientation")


@dataclass(frozen=True)
class ImportReport:
    """What happened to every tensor of a checkpoint, under its names there.

    folder: the model; info: its description; kind: which network the checkpoint holds; loaded: now part of the model;
    folded: of these, the ones summed, averaged or added up; dropped: known, but never used by the network; unexpected:
    not part of the network; missing: of the network, but not in the checkpoint (a checkpoint that lacks what counts is
    refused); notes: what a person should know; epoch: as saved.
    """

    folder: Path
    info: ModelInfo
    kind: str
    epoch: int | str | None
    loaded: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def architecture_shapes(architecture: Mapping[str, Any], where: str, system: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of an architecture.

    Raises:
        BadInput: it cannot be built, so the checkpoint is not one of `system`.
    """
    try:
        with torch.device("meta"):
            state = build_network(architecture).state_dict()
    except BadInput as error:
        raise BadInput(f"{where} is not of a network of {system}: {error}") from None
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def check_tensors(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], where: str, system: str) -> None:
    """Refuse a state dict in which a tensor is absent, of another shape, or without finite values of its own.

    Raises:
        BadInput: so it is; up to four tensors are named.
    """
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
                 for name, shape in wanted.items() if name in state and tuple(state[name].shape) != shape]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BadInput(f"{where} does not hold a whole network of {system}: {'; '.join(problems[:4])}{more}. "
                       "It is incomplete or was made by changed code.")
    for name in wanted:
        if state[name].dtype not in PLAIN_TYPES or state[name].layout != torch.strided or state[name].is_meta:
            raise BadInput(f"{where}: {name} holds {'no values: ' * state[name].is_meta}{state[name].dtype} in a "
                           f"{state[name].layout} layout instead of plain floating-point numbers. {AGAIN}")
        if state[name].untyped_storage().nbytes() < state[name].numel() * state[name].element_size():
            raise BadInput(f"{where}: {name} repeats a few stored values up to its shape {tuple(state[name].shape)}, "
                           "which no training writes and which may need any amount of memory. Save its state dict "
                           "after copying every tensor with .contiguous().")
        if not torch.isfinite(state[name].to(torch.float32)).all():
            raise BadInput(f"{where}: {name} holds values that are not finite numbers. Its training diverged or the "
                           "file is damaged; use an earlier checkpoint.")


def one_channel(weights: Mapping[str, Tensor], stem: str, pixels: Sequence[str],
                channels: int) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Fold the input channels; exact where they held the same values, as grey images repeated in colour do.

    The stem is summed over them. The voxels that pretraining predicts, channel fastest, are averaged over them.

    Args:
        weights: name to tensor.
        stem: name of the weight (width, channels, ...).
        pixels: names of the weights whose first axis is the predicted voxels; those that are absent are skipped.
        channels: in `weights`.

    Returns:
        All weights, and the names of the folded ones.
    """
    folded = {stem: weights[stem].double().sum(dim=1, keepdim=True)}
    for name in pixels:
        if name in weights:
            folded[name] = weights[name].double().unflatten(0, (-1, channels)).mean(dim=1)
    return {**weights, **folded}, tuple(folded)


def class_labels(classes: int, names: Sequence[str], task: str) -> list[dict[str, Any]]:
    """The labels of a model, by the names given or as "class N", the background of a segmentation first.

    Raises:
        BadInput: the names do not fit the classes.
    """
    if not classes:
        if names:
            raise BadInput("A pretraining checkpoint has no classes to name. Leave --labels out.")
        return []
    if not names:
        names = [f"class {number}" for number in range(classes)]
        if task == "segmentation":
            names = ["background", *names[1:]]
    problem = ("" if len(names) == classes else f"{len(names)} names were given") or (
        "a name is empty" if not all(names) else "a name is given twice" if len(set(names)) < len(names) else "")
    if problem:
        background = ", the background first" if task == "segmentation" else ""
        raise BadInput(f"The checkpoint tells {classes} classes apart{background}, but {problem}. "
                       'Give one name a class: --labels "first,second,...".')
    return model_labels({name: number for number, name in enumerate(names)})


def axes(orientation: str | None) -> str:
    """The axes that a network sees: as asked, or `LOADED_ORIENTATION`.

    Raises:
        BadInput: three letters are asked for that do not name three axes.
    """
    code = (orientation or LOADED_ORIENTATION).upper()
    if not is_axis_code(code):
        raise BadInput(f"The orientation {orientation!r} does not name three axes. Give the directions in which the "
                       "last, middle and first axis of the input increase, as in --orientation SAR.")
    return code


def window_intensity(intensity_range: tuple[float, float]) -> Intensity:
    """The stored values LOW..HIGH mapped to [0, 1].

    Raises:
        BadInput: it is no range.
    """
    try:
        return Intensity("window", *intensity_range)
    except ValueError as error:
        raise BadInput(f"The intensity range cannot be used: {error}. "
                       "Give two rising numbers (--intensity-range).") from None
