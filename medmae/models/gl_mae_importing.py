"""Importing what the authors' code of GL-MAE saves: a ViT over volumes with its reconstruction decoder. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medmae.config import to_json
from medmae.errors import BadInput
from medmae.models import gl_mae_layout as layouts
from medmae.models.checkpoint_files import Checkpoint, read_checkpoint
from medmae.models.gl_mae_layout import GlMaeLayout, Grid
from medmae.models.import_report import (
    ImportOptions,
    ImportReport,
    architecture_shapes,
    axes,
    check_tensors,
    class_labels,
    one_channel,
    window_intensity,
)
from medmae.models.info import ModelInfo
from medmae.models.position_tables import table_kind
from medmae.models.registry import load_info
from medmae.models.saving import save_model
from medmae.networks.presets import PRESETS
from medmae.networks.vit import three_sides
from medmae.volumes import Intensity, default_intensity

SYSTEM = "GL-MAE"
LICENCE = "Not stated by the authors: their repository has no licence. Check before you use or share these weights."
CITATION = ("Advancing Volumetric Medical Image Segmentation via Global-Local Masked Autoencoder. IEEE Transactions on "
            "Medical Imaging, 2025. doi:10.1109/TMI.2025.3569782. arXiv:2306.08913")
STUDENT_AND_TEACHER = ("student", "teacher")
LARGEST_SIDE = 512  # voxels of a side of the window; a cube of them is the largest that a model may have
TABLES = {"sin-cos": "the table of fixed 3-D sines and cosines", "learned": "a learned or foreign table",
          "zeros": "a table of zeros"}
ZEROS = ("The checkpoint's table of positions is all zeros, as in the released class before weights are loaded: the "
         "network cannot tell where a patch lies. It is kept, because the weights were trained or saved so; "
         "--positions computed puts sines and cosines in its place.")


def import_gl_mae(path: str | Path, out: Path, options: ImportOptions) -> ImportReport:
    """Import a pretraining checkpoint of GL-MAE: its student (as the published transfer does), teacher or bare state.

    The decoder may be absent, as in the released class by default; the model is then an encoder alone, which can be
    finetuned but not reconstruct.

    Raises:
        BadInput: it is not the whole of such a network, or an option does not fit.
    """
    checkpoint, notes = _read(path, options)
    where = f"The checkpoint {checkpoint.path}"
    class_labels(0, options.labels, "pretraining")
    saved = _unwrapped(checkpoint.state, where)
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    layout = layouts.read_layout(shapes, where)
    grid, has_class_row = layouts.table_grid(layout.positions, options.grid, where)
    architecture = _architecture(layout, grid, options, where)
    wanted = _official_shapes(architecture, layout, has_class_row, where)
    check_tensors(saved, wanted, where, SYSTEM)
    weights = {name: saved[name] for name in wanted}
    folded: tuple[str, ...] = ()
    if options.channels not in (None, layout.channels):
        if options.channels != 1:
            raise BadInput(f"{where} has {layout.channels} channel{'s' * (layout.channels > 1)}; it can be kept so or "
                           f"be folded to 1 (--channels 1), not to {options.channels}. Finetuning fits the stem to the "
                           "channels of its own images.")
        weights, folded = one_channel(weights, "patch_embed.proj.weight",
                                      ("decoder_pred.weight", "decoder_pred.bias"), layout.channels)
        architecture["arguments"]["channels"] = 1
    weights, more_folded, told = _positions(weights, architecture, grid, has_class_row, options, where)
    if not layout.decoder_width:
        notes += ("The checkpoint has no decoder, and so has the model: it can be finetuned, but not reconstruct.",)
    info = _info(layout, architecture, checkpoint, grid, out, options)
    save_model(out, info, {_ours(name): tensor.to(torch.float32) for name, tensor in weights.items()})
    rest = [name for name in saved if name not in wanted]
    used = {name for name in wanted if name in weights or name in more_folded}
    return ImportReport(
        folder=out, info=load_info(out), kind="pretraining", epoch=checkpoint.epoch,
        loaded=tuple(name for name in wanted if name in used), folded=folded + more_folded,
        dropped=tuple(name for name in (*rest, *wanted) if name not in used and _is_known(name, wanted)),
        unexpected=tuple(name for name in rest if not _is_known(name, wanted)), notes=notes + told)


def _read(path: str | Path, options: ImportOptions) -> tuple[Checkpoint, tuple[str, ...]]:
    asked = options.weights
    if asked is not None and asked not in STUDENT_AND_TEACHER:
        raise BadInput(f"--weights {asked} is not known. Choose {' or '.join(STUDENT_AND_TEACHER)}.")
    checkpoint = read_checkpoint(path, first=STUDENT_AND_TEACHER if asked is None else (asked, *STUDENT_AND_TEACHER))
    if asked is not None and checkpoint.key != asked:
        raise BadInput(f"The checkpoint {path} has no {asked}: it holds "
                       f"{', '.join(checkpoint.keys) or 'a bare state dict'}. Leave --weights out.")
    if checkpoint.key not in STUDENT_AND_TEACHER:
        return checkpoint, ()
    other = next(name for name in STUDENT_AND_TEACHER if name != checkpoint.key)
    beside = f"; --weights {other} imports the {other} beside it" if other in checkpoint.keys else ""
    return checkpoint, (f"These are the weights of the {checkpoint.key}{beside}.",)


def _unwrapped(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    unwrapped: dict[str, Tensor] = {}
    for saved, tensor in state.items():
        name = layouts.official_name(saved)
        if name in unwrapped:
            raise BadInput(f"{where} holds {name} twice, under different prefixes, so which one is meant cannot be "
                           "told. Save one state dict alone and import that.")
        unwrapped[name] = tensor
    return unwrapped


def _architecture(layout: GlMaeLayout, grid: Grid, options: ImportOptions, where: str) -> dict[str, Any]:
    width, decoder = layout.width, layout.decoder_width
    patch: int | list[int] = layout.patch[0] if len(set(layout.patch)) == 1 else list(layout.patch)
    arguments: dict[str, Any] = {
        "channels": layout.channels, "patch": patch, "width": width, "depth": layout.depth,
        "heads": layouts.encoder_heads(width, options.heads, where)}
    if options.positions == "table":
        arguments["position_grid"] = list(grid)
    if not decoder:
        return {"name": "vit_alone", "arguments": arguments}
    return {"name": "vit_mae", "arguments": arguments | {
        "decoder_width": decoder, "decoder_depth": layout.decoder_depth,
        "decoder_heads": layouts.decoder_heads(decoder, options.decoder_heads, where), "decoder_class_token": True}}


def _official_shapes(architecture: Mapping[str, Any], layout: GlMaeLayout, has_class_row: bool,
                     where: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything that the checkpoint must hold, tables of positions included."""
    wanted = {layouts.medmae_to_official(name): shape for name, shape in
              architecture_shapes(architecture, where, SYSTEM).items()}
    wanted["pos_embed"] = (1, layout.positions, layout.width)
    if layout.decoder_width:
        wanted["decoder_pos_embed"] = (1, layout.positions, layout.decoder_width)
    if not has_class_row and layout.decoder_width:
        raise BadInput(f"{where} has a decoder, but its table of positions has no row for CLS, which that of GL-MAE "
                       "has. It was made by changed code.")
    return wanted


def _positions(weights: Mapping[str, Tensor], architecture: Mapping[str, Any], grid: Grid, has_class_row: bool,
               options: ImportOptions, where: str) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """Fold the row of CLS into its token; keep the tables, or replace them by computed positions.

    Returns:
        The weights, the names of what was folded, and what is to be told.
    """
    changed = dict(weights)
    table = changed.pop("pos_embed").to(torch.float32)[0]
    folded: tuple[str, ...] = ()
    if has_class_row:
        if table[0].any():
            changed["cls_token"], folded = weights["cls_token"].to(torch.float32) + table[0], ("pos_embed",)
        table = table[1:]
    kind, size = table_kind(table, grid), " x ".join(map(str, grid))
    decoder_table = changed.pop("decoder_pos_embed", None)
    if options.positions == "table":
        changed["pos_embed"] = table
        if decoder_table is not None:
            changed["decoder_pos_embed"] = decoder_table.to(torch.float32)[0]
        told = f"The positions are {TABLES[kind]} of {size} tokens; other grids resize it, as the authors' code does."
        return changed, folded, (ZEROS if kind == "zeros" else told,)
    if kind == "learned" or (decoder_table is not None and _decoder_kind(decoder_table, grid) == "learned"):
        raise BadInput(f"{where}: its positions are no 3-D sines and cosines in the order of the axes, so computed "
                       "ones would give another network. Leave --positions computed out.")
    return changed, folded, (f"The positions were {TABLES[kind]} of {size} tokens; they are computed instead.",)


def _decoder_kind(table: Tensor, grid: Grid) -> str:
    """Of a decoder's table (1, 1 + tokens, width); one with a CLS row that is not zero cannot be computed."""
    rows = table.to(torch.float32)[0]
    return "learned" if rows[0].any() else table_kind(rows[1:], grid)


def _is_known(name: str, wanted: Mapping[str, Any]) -> bool:
    return name in wanted or layouts.NOT_USED.fullmatch(name) is not None


def _ours(official: str) -> str:
    name = layouts.medmae_name(official)
    assert name is not None  # made from the names of our own network
    return name


def _info(layout: GlMaeLayout, architecture: dict[str, Any], checkpoint: Checkpoint, grid: Grid, out: Path,
          options: ImportOptions) -> ModelInfo:
    modality = options.modality or "CT"
    channels = architecture["arguments"]["channels"]
    names = [modality] if channels == 1 else [f"channel {number}" for number in range(1, channels + 1)]
    training: dict[str, Any] = {"source": checkpoint.path.name, "format": "gl-mae", "network": "pretraining",
                                "positions": options.positions}
    if checkpoint.key is not None:
        training["weights"] = checkpoint.key
    if checkpoint.epoch is not None:
        training["epoch"] = checkpoint.epoch
    return ModelInfo(
        name=options.name if options.name is not None else out.resolve().name, task="encoder", method="gl-mae",
        preset=preset_for(layout.patch, layout.depth), architecture=architecture, spatial_dims=3,
        channels=[{"name": name, "modality": modality} for name in names],
        input_size=volume_window(layout.patch, grid, options.input_side), modality=modality,
        orientation=axes(options.orientation),
        intensity=to_json(official_intensity(modality, options.intensity_range)),
        training=training, licence=LICENCE, citation=CITATION)


def official_intensity(modality: str, intensity_range: tuple[float, float] | None) -> Intensity:
    """CT as the authors' code scales it, -1000..1000 HU to [0, 1]; another modality as MedMAE does; or the range given.

    Raises:
        BadInput: the range is none.
    """
    if intensity_range is None:
        return default_intensity(modality, target="gl-mae")
    return window_intensity(intensity_range)


def preset_for(patch: Grid, depth: int) -> str:
    """The published preset, or one whose patch and skips suit a network of other sizes."""
    for name in sorted(PRESETS["gl-mae"], key=lambda name: not name.startswith("base")):
        own = PRESETS["gl-mae"][name].architecture("segmentation", 1, 2)
        if own["name"] == "unetr" and three_sides(own["arguments"]["patch"]) == patch and max(
                own["arguments"]["skip_blocks"], default=0) <= depth:
            return name
    return "base"


def volume_window(patch: Grid, grid: Grid, side: int | None) -> list[int]:
    """The window (k, j, i) in voxels: a cube of `side`, or that of the table of positions.

    Raises:
        BadInput: a side is no multiple of the patch, or far too large.
    """
    size = [side] * 3 if side is not None else [tokens * step for tokens, step in zip(grid, patch, strict=True)]
    if max(size) > LARGEST_SIDE:
        raise BadInput(f"The input size {max(size)} is too large: a network looks at {LARGEST_SIDE} voxels a side at "
                       "most. Choose a smaller --input-size; larger volumes are seen through several windows.")
    if any(length % step for length, step in zip(size, patch, strict=True)):
        stride = math.lcm(*patch)
        raise BadInput(f"The input size {side} is not a multiple of {stride}, the patch of the network. Choose "
                       f"{max(1, size[0] // stride) * stride} or {(size[0] // stride + 1) * stride} (--input-size).")
    return size
