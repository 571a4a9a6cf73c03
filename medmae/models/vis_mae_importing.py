"""Importing what the authors' code of VIS-MAE saves (or that of Swin MAE, its ancestor). Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medmae.config import to_json
from medmae.datasets.preprocessing import ORIENTATION
from medmae.errors import BadInput
from medmae.models.checkpoint_files import Checkpoint, read_checkpoint
from medmae.models.import_report import (
    ImportOptions,
    ImportReport,
    architecture_shapes,
    check_tensors,
    class_labels,
    one_channel,
    window_intensity,
)
from medmae.models.info import ModelInfo
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
from medmae.volumes import Intensity, default_intensity

SYSTEM = "VIS-MAE"
LICENCE = ("Not stated by the authors: their repository has no licence, and what it is derived from forbids commercial "
           "use. Check before you use or share these weights.")
CITATION = ("VIS-MAE: An Efficient Self-supervised Learning Approach on Medical Image Segmentation and Classification. "
            "MLMI at MICCAI 2024. arXiv:2402.01034")
PRETRAINING_MEAN, PRETRAINING_STD = 0.223, 0.202  # of intensities in [0, 1], one pair for every channel and modality
INPUT_SIDES = {"pretraining": 224, "segmentation": 320, "classification": 224}
CHANNEL_NAMES = {1: ("grey",), 3: ("red", "green", "blue")}


def import_vis_mae(path: str | Path, out: Path, options: ImportOptions) -> ImportReport:
    """Import a pretraining, segmentation or classification checkpoint of VIS-MAE (or of Swin MAE, its ancestor)."""
    checkpoint = read_checkpoint(path)
    where = f"The checkpoint {checkpoint.path}"
    state = {name: _as_convolution(name, tensor) for name, tensor in checkpoint.state.items()}
    layout = read_layout({name: tuple(tensor.shape) for name, tensor in state.items()}, where)
    wanted = {official_name(name): shape
              for name, shape in architecture_shapes(layout.architecture, where, SYSTEM).items()}
    check_tensors(state, wanted, where, SYSTEM)
    weights = {name: state[name] for name in wanted}
    architecture = layout.architecture
    folded: tuple[str, ...] = ()
    if options.channels not in (None, layout.channels):
        if options.channels != 1:
            raise BadInput(f"{where} has {layout.channels} channels; it can be kept so or be folded to 1 "
                           f"(--channels 1), not to {options.channels}.")
        weights, folded = one_channel(weights, "patch_embed.proj.weight",
                                      ("decoder_pred.weight", "decoder_pred.bias"), layout.channels)
        architecture["arguments"]["channels"] = 1
    info = _info(layout, architecture, checkpoint, out, options)
    save_model(out, info, {_ours(name): tensor.to(torch.float32) for name, tensor in weights.items()})
    rest = [name for name in state if name not in wanted]
    return ImportReport(
        folder=out, info=load_info(out), kind=layout.kind, epoch=checkpoint.epoch, loaded=tuple(wanted), folded=folded,
        dropped=tuple(name for name in rest if NOT_WEIGHTS.fullmatch(name)),
        unexpected=tuple(name for name in rest if not NOT_WEIGHTS.fullmatch(name)))


def _as_convolution(name: str, tensor: Tensor) -> Tensor:
    """Swin MAE keeps the weights of skips as (C, 2C), of a linear layer; VIS-MAE as (C, 2C, 1, 1)."""
    linear = name.startswith("skip_connection_layers.") and tensor.ndim == 2
    return tensor[:, :, None, None] if linear else tensor


def _ours(official: str) -> str:
    name = medmae_name(official)
    assert name is not None  # made from the names of our own network
    return name


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
        labels=class_labels(layout.classes, options.labels, layout.kind), modality=options.modality,
        orientation=ORIENTATION[2],
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
        scaled = window_intensity(intensity_range)
    elif kind == "segmentation":
        scaled = Intensity("xray", 0.0, 100.0)
    elif kind == "pretraining" and modality:
        scaled = default_intensity(modality)
    if kind != "pretraining":
        return scaled
    return Intensity(scaled.kind, scaled.low, scaled.high, mean=PRETRAINING_MEAN, std=PRETRAINING_STD)
