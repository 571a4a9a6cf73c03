"""Importing weights of MONAI's ViT, UNETR and MaskedAutoEncoderViT. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medmae.config import to_json
from medmae.errors import BadInput
from medmae.models.checkpoint_files import Checkpoint, read_checkpoint
from medmae.models.gl_mae_importing import official_intensity, preset_for, volume_window
from medmae.models.gl_mae_layout import Grid, encoder_heads, table_grid
from medmae.models.import_report import (
    ImportOptions,
    ImportReport,
    architecture_shapes,
    axes,
    check_tensors,
    class_labels,
)
from medmae.models.info import ModelInfo
from medmae.models.monai_layout import NOT_USED, TASKS, MonaiLayout, medmae_name, read_layout
from medmae.models.registry import load_info
from medmae.models.saving import save_model

SYSTEM = "MONAI"
DECODER_HEADS = 12
LICENCE = "Not stated in the state dict. Ask who trained the weights before you use or share them."
NO_SCALE = ("A state dict does not say how intensities were scaled: the modality's usual range is taken. Give "
            "--intensity-range and --modality as in the training.")


def import_monai(path: str | Path, out: Path, options: ImportOptions) -> ImportReport:
    """Import a state dict of one of MONAI's three-dimensional vision transformers; every tensor must find its place.

    Raises:
        BadInput: it is another network, something in it cannot be represented, or an option does not fit.
    """
    if options.positions != "table" or options.weights is not None:
        raise BadInput("--weights and --positions computed are for GL-MAE: MONAI's tables of positions are learned, or "
                       "have another order. Leave them out.")
    checkpoint = read_checkpoint(path)
    where = f"The checkpoint {checkpoint.path}"
    layout = read_layout({name: tuple(tensor.shape) for name, tensor in checkpoint.state.items()}, where)
    if options.channels not in (None, layout.channels):
        raise BadInput(f"{where} has {layout.channels} channels; they are kept as they are. Leave --channels out: "
                       "finetuning fits the stem to the channels of its own images.")
    grid, has_class_row = table_grid(layout.positions, options.grid, where)
    if has_class_row:
        raise BadInput(f"{where} has {layout.positions} positions, which are no cube of tokens. Give the tokens along "
                       "the three axes (--grid k,j,i), in the order of the axes of the input.")
    architecture = layout.architecture(grid, encoder_heads(layout.width, options.heads, where),
                                       options.decoder_heads or DECODER_HEADS)
    names, dropped = _places(checkpoint.state, layout, where)
    shapes = architecture_shapes(architecture, where, SYSTEM)
    state, notes = _complete({ours: checkpoint.state[theirs] for ours, theirs in names.items()}, layout, shapes)
    theirs = {ours: names.get(ours, ours) for ours in shapes}
    check_tensors({theirs.get(ours, ours): tensor for ours, tensor in state.items()},
                  {theirs[ours]: shape for ours, shape in shapes.items()}, where, SYSTEM)
    info = _info(layout, architecture, checkpoint, grid, out, options)
    save_model(out, info, {name: tensor.to(torch.float32) for name, tensor in state.items()})
    return ImportReport(
        folder=out, info=load_info(out), kind=layout.kind, epoch=checkpoint.epoch, loaded=tuple(names.values()),
        dropped=dropped, notes=notes if options.intensity_range else (*notes, NO_SCALE))


def _places(state: Mapping[str, Tensor], layout: MonaiLayout, where: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """MedMAE's name to MONAI's for every tensor, and the names that no network uses."""
    dropped = tuple(name for name in state if NOT_USED.fullmatch(name))
    places = {name: medmae_name(name, layout) for name in state if name not in dropped}
    strange = [name for name, place in places.items() if place is None]
    if strange:
        more = " ..." if len(strange) > 4 else ""
        raise BadInput(f"{where} holds {', '.join(strange[:4])}{more}, which MedMAE's {layout.kind} does not have "
                       "(norms with weights, blocks without residual, separate q, k and v are such). What the network "
                       "computes cannot be represented exactly.")
    return {place: name for name, place in places.items() if place is not None}, dropped


def _complete(state: dict[str, Tensor], layout: MonaiLayout,
              shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors in MedMAE's shapes: perceptrons as convolutions, tables without batch, absent biases as zeros."""
    notes: tuple[str, ...] = ()
    stem = "encoder.patch_embed.proj.weight"
    if layout.perceptron and state[stem].shape == (layout.width, layout.channels * torch.Size(layout.patch).numel()):
        state[stem] = state[stem].unflatten(1, (*layout.patch, layout.channels)).permute(0, 4, 1, 2, 3)
    for name in ("encoder.position_table", "decoder.position_table"):
        if name in state and state[name].ndim == 3:
            state[name] = state[name][0]
    if "decoder.position_table" in state:  # CLS has none there
        table = state["decoder.position_table"]
        state["decoder.position_table"] = torch.cat([torch.zeros_like(table[:1]), table])
    absent = [name for name in shapes if name.endswith("attn.qkv.bias") and name not in state]
    if len(absent) == sum(name.endswith("attn.qkv.bias") for name in shapes):
        state |= {name: torch.zeros(shapes[name]) for name in absent}
        notes = ("Queries, keys and values have no bias in the checkpoint: theirs is zero, which computes the same.",)
    return state, notes


def _info(layout: MonaiLayout, architecture: dict[str, Any], checkpoint: Checkpoint, grid: Grid, out: Path,
          options: ImportOptions) -> ModelInfo:
    task = TASKS[layout.kind]
    names = [options.modality or "image"] if layout.channels == 1 else [
        f"channel {number}" for number in range(1, layout.channels + 1)]
    return ModelInfo(
        name=options.name if options.name is not None else out.resolve().name, task=task, method="gl-mae",
        preset=preset_for(layout.patch, layout.depth), architecture=architecture, spatial_dims=3,
        channels=[{"name": name, "modality": options.modality} for name in names],
        input_size=volume_window(layout.patch, grid, options.input_side),
        labels=class_labels(layout.classes, options.labels, task), modality=options.modality,
        orientation=axes(options.orientation),
        intensity=to_json(official_intensity(options.modality, options.intensity_range)),
        training={"source": checkpoint.path.name, "format": "monai", "network": layout.kind}, licence=LICENCE)
