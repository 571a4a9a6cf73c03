"""Turning the checkpoints of the published systems into models of MedMAE. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medmae.config import to_json
from medmae.datasets.preprocessing import ORIENTATION
from medmae.errors import BadInput
from medmae.models.checkpoint_files import AGAIN, Checkpoint, read_checkpoint
from medmae.models.info import ModelInfo
from medmae.models.labels import model_labels
from medmae.models.registry import load_info
from medmae.models.saving import save_model
from medmae.models.vis_mae_layout import (
    LARGEST_SIDE,
    NOT_WEIGHTS,
    TASKS,
    OfficialLayout,
    medmae_name,
    official_name,
    read_layout,
)
from medmae.networks.build import build_network
from medmae.volumes import Intensity, default_intensity

LICENCE = ("Not stated by the authors: their repository has no licence, and what it is derived from forbids commercial "
           "use. Check before you use or share these weights.")
CITATION = ("VIS-MAE: An Efficient Self-supervised Learning Approach on Medical Image Segmentation and Classification. "
            "MLMI at MICCAI 2024. arXiv:2402.01034")
PRETRAINING_MEAN, PRETRAINING_STD = 0.223, 0.202  # of intensities in [0, 1], one pair for every channel and modality
PLAIN_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INPUT_SIDES = {"pretraining": 224, "segmentation": 320, "classification": 224}
CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}


@dataclass(frozen=True)
class ImportOptions:
    """What a person may add to what a checkpoint says.

    name: of the model (default: that of its folder); channels: 1 folds the stem, None keeps the checkpoint's number;
    modality: DICOM code of the training images, "" where they were mixed or unknown; labels: names in class order;
    input_side: pixels of the square that the network looks at; intensity_range: the stored values that become 0 and 1.
    """

    name: str | None = None
    channels: int | None = None
    modality: str = ""
    labels: tuple[str, ...] = ()
    input_side: int | None = None
    intensity_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class ImportReport:
    """What happened to every tensor of a checkpoint, under its names there.

    folder: the model; info: its description; kind: which network the checkpoint holds; loaded: now part of the model;
    folded: of these, the ones summed or averaged over input channels; dropped: known, but never used by the network;
    unexpected: not part of the network; epoch: as saved.
    """

    folder: Path
    info: ModelInfo
    kind: str
    epoch: int | str | None
    loaded: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = field(default=())


def import_model(format_name: str, checkpoint: str | Path, out: str | Path,
                 options: ImportOptions | None = None) -> ImportReport:
    """Import a checkpoint of a published system as a model folder.

    Args:
        format_name: one of `FORMATS`.
        checkpoint: the file.
        out: the model folder to write; must be absent or empty.
        options: what the checkpoint does not say.

    Raises:
        BadInput: unknown format, unusable option, unreadable file, or one that is not the whole of a known network.
    """
    if format_name not in FORMATS:
        raise BadInput(f"Checkpoints of the format {format_name!r} cannot be imported. Known: {', '.join(FORMATS)}.")
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"The output {out} exists and is not an empty folder. Choose another --out.")
    if options is not None and options.name is not None and not options.name.strip():
        raise BadInput("The name is empty. Give the model a name, or leave it to --out.")
    return FORMATS[format_name](read_checkpoint(checkpoint), out, options or ImportOptions())


def import_vis_mae(checkpoint: Checkpoint, out: Path, options: ImportOptions) -> ImportReport:
    """Import a pretraining, segmentation or classification checkpoint of VIS-MAE (or of Swin MAE, its ancestor)."""
    where = f"The checkpoint {checkpoint.path}"
    state = {name: _as_convolution(name, tensor) for name, tensor in checkpoint.state.items()}
    layout = read_layout({name: tuple(tensor.shape) for name, tensor in state.items()}, where)
    wanted = _official_shapes(layout, where)
    _check_tensors(state, wanted, where)
    weights = {name: state[name] for name in wanted}
    architecture = layout.architecture
    folded: tuple[str, ...] = ()
    if options.channels not in (None, layout.channels):
        if options.channels != 1:
            raise BadInput(f"{where} has {layout.channels} channels; it can be kept so or be folded to 1 "
                           f"(--channels 1), not to {options.channels}.")
        weights, folded = _one_channel(weights, layout)
        architecture["arguments"]["channels"] = 1
    info = _info(layout, architecture, checkpoint, out, options)
    save_model(out, info, {_ours(name): tensor.to(torch.float32) for name, tensor in weights.items()})
    rest = [name for name in state if name not in wanted]
    return ImportReport(
        folder=out, info=load_info(out), kind=layout.kind, epoch=checkpoint.epoch, loaded=tuple(wanted), folded=folded,
        dropped=tuple(name for name in rest if NOT_WEIGHTS.fullmatch(name)),
        unexpected=tuple(name for name in rest if not NOT_WEIGHTS.fullmatch(name)))


FORMATS: dict[str, Callable[[Checkpoint, Path, ImportOptions], ImportReport]] = {"vis-mae": import_vis_mae}


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    """Swin MAE keeps the weights of skips as (C, 2C), of a linear layer; VIS-MAE as (C, 2C, 1, 1)."""
    linear = name.startswith("skip_connection_layers.") and tensor.ndim == 2
    return tensor[:, :, None, None] if linear else tensor


def _official_shapes(layout: OfficialLayout, where: str) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"):
            state = build_network(layout.architecture).state_dict()
    except BadInput as error:
        raise BadInput(f"{where} is not of a network of VIS-MAE: {error}") from None
    return {official_name(name): tuple(tensor.shape) for name, tensor in state.items()}


def _ours(official: str) -> str:
    name = medmae_name(official)
    assert name is not None  # made from the names of our own network
    return name


def _check_tensors(state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
                 for name, shape in wanted.items() if name in state and tuple(state[name].shape) != shape]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BadInput(f"{where} does not hold a whole network of VIS-MAE: {'; '.join(problems[:4])}{more}. "
                       "It is incomplete or was made by changed code.")
    for name in wanted:
        if state[name].dtype not in PLAIN_TYPES or state[name].layout != torch.strided or state[name].is_meta:
            raise BadInput(f"{where}: {name} holds {'no values: ' * state[name].is_meta}{state[name].dtype} in a "
                           f"{state[name].layout} layout instead of plain floating-point numbers. {AGAIN}")
        if not torch.isfinite(state[name].to(torch.float32)).all():
            raise BadInput(f"{where}: {name} holds values that are not finite numbers. Its training diverged or the "
                           "file is damaged; use an earlier checkpoint.")


def _one_channel(weights: Mapping[str, Tensor], layout: OfficialLayout) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Fold the input channels; exact where they held the same values, as grey images repeated in colour do.

    The stem is summed over them. The pixels that pretraining predicts are averaged over them.
    """
    folded = {"patch_embed.proj.weight": weights["patch_embed.proj.weight"].double().sum(dim=1, keepdim=True)}
    for name in ("decoder_pred.weight", "decoder_pred.bias"):
        if name in weights:  # (pixels, channel fastest), then the width
            pixels = weights[name].double().unflatten(0, (layout.patch**2, layout.channels))
            folded[name] = pixels.mean(dim=1)
    return {**weights, **folded}, tuple(folded)


def _info(layout: OfficialLayout, architecture: dict[str, Any], checkpoint: Checkpoint, out: Path,
          options: ImportOptions) -> ModelInfo:
    channels = architecture["arguments"]["channels"]
    names = CHANNEL_NAMES.get(channels) or tuple(f"channel {number}" for number in range(1, channels + 1))
    side = _input_side(layout, options)
    training: dict[str, Any] = {"source": checkpoint.path.name, "format": "vis-mae", "network": layout.kind}
    if checkpoint.epoch is not None:
        training["epoch"] = checkpoint.epoch
    if channels != layout.channels:
        training["channels folded from"] = layout.channels
    return ModelInfo(
        name=options.name if options.name is not None else out.resolve().name, task=TASKS[layout.kind],
        method="vis-mae", preset="base", architecture=architecture, spatial_dims=2,
        channels=[{"name": name, "modality": options.modality} for name in names], input_size=[side, side],
        labels=_labels(layout, options.labels), modality=options.modality, orientation=ORIENTATION[2],
        intensity=to_json(official_intensity(layout.kind, options.modality, options.intensity_range)),
        training=training, licence=LICENCE, citation=CITATION)


def _input_side(layout: OfficialLayout, options: ImportOptions) -> int:
    side = options.input_side or layout.image_size or INPUT_SIDES[layout.kind]
    if side > LARGEST_SIDE:
        raise BadInput(f"The input size {side} is too large: a network looks at {LARGEST_SIDE} pixels at most. "
                       "Choose a smaller --input-size; larger images are seen through several windows.")
    if side % layout.stride:
        below = side // layout.stride * layout.stride
        nearest = f"{below} or {below + layout.stride}" if below else layout.stride
        raise BadInput(f"The input size {side} is not a multiple of {layout.stride}, the stride of the network. "
                       f"Choose {nearest} (--input-size).")
    return side


def official_intensity(kind: str, modality: str = "",
                       intensity_range: tuple[float, float] | None = None) -> Intensity:
    """The normalisation that the official scripts use for a network.

    They read pictures of 8 bits: pretraining maps 0..255 to [0, 1] and standardises with one pair of constants,
    segmentation maps each image's own minimum and maximum to [0, 1], classification maps 0..255 to [0, 1]. For
    pretraining weights of a known modality, that modality's usual range takes the place of 0..255, because images on
    other scales (Hounsfield units, 16 bits) would be cut off.

    Args:
        kind: pretraining, segmentation or classification.
        modality: DICOM code, or "".
        intensity_range: the stored values that become 0 and 1, instead of all this.

    Raises:
        BadInput: the range is not one.
    """
    scaled = Intensity("window", 0.0, 255.0)
    if intensity_range is not None:
        try:
            scaled = Intensity("window", *intensity_range)
        except ValueError as error:
            raise BadInput(f"The intensity range cannot be used: {error}. "
                           "Give two rising numbers (--intensity-range).") from None
    elif kind == "segmentation":
        scaled = Intensity("xray", 0.0, 100.0)
    elif kind == "pretraining" and modality:
        scaled = default_intensity(modality)
    if kind != "pretraining":
        return scaled
    return Intensity(scaled.kind, scaled.low, scaled.high, mean=PRETRAINING_MEAN, std=PRETRAINING_STD)


def _labels(layout: OfficialLayout, names: Sequence[str]) -> list[dict[str, Any]]:
    if layout.kind == "pretraining":
        if names:
            raise BadInput("A pretraining checkpoint has no classes to name. Leave --labels out.")
        return []
    if not names:
        names = [f"class {number}" for number in range(layout.classes)]
        if layout.kind == "segmentation":
            names = ["background", *names[1:]]
    problem = ("" if len(names) == layout.classes else f"{len(names)} names were given") or (
        "a name is empty" if not all(names) else "a name is given twice" if len(set(names)) < len(names) else "")
    if problem:
        background = ", the background first" if layout.kind == "segmentation" else ""
        raise BadInput(f"The checkpoint tells {layout.classes} classes apart{background}, but {problem}. "
                       'Give one name a class: --labels "first,second,...".')
    return model_labels({name: number for number, name in enumerate(names)})
