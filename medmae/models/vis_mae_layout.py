"""The official layout of VIS-MAE's checkpoints: its names, and which network a checkpoint holds.

Source: the published description of the file format (docs/importing.md). Needs no torch; tensors are known by their
shapes alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medmae.errors import BadInput

Shapes = Mapping[str, tuple[int, ...]]
Kind = Literal["pretraining", "segmentation", "classification"]

OFFICIAL_TO_MEDMAE = (
    ("patch_embed.", "encoder.patch_embed."), ("layers.", "encoder.stages."),
    ("first_patch_expanding.", "decoder.first_expand."), ("layers_up.", "decoder.stages."),
    ("skip_connection_layers.", "decoder.skips."), ("norm_up.", "decoder.norm."),
    ("final_patch_expanding.", "final_expand."), ("mask_token", "mask_token"), ("decoder_pred.", "decoder_pred."),
    ("norm.", "norm."), ("head.", "head."),
)
NOT_WEIGHTS = re.compile(r"pos_embed|.*\.relative_position_index")  # a table that is never added; constants
MASK_BLOCK = 4  # tokens; fixed in the official code
DROP_PATH = 0.1
LARGEST_SIDE = 8192  # pixels of the square that a network looks at
TASKS: dict[Kind, Literal["encoder", "segmentation", "classification"]] = {
    "pretraining": "encoder", "segmentation": "segmentation", "classification": "classification"}
NETWORKS: dict[Kind, str] = {
    "pretraining": "swin_mae", "segmentation": "swin_unet", "classification": "swin_classifier"}


def medmae_name(official: str) -> str | None:
    """The name that a tensor of the official state dict has in MedMAE; None for one that is in none of its networks."""
    return next((ours + official.removeprefix(theirs) for theirs, ours in OFFICIAL_TO_MEDMAE
                 if official.startswith(theirs)), None)


def official_name(medmae: str) -> str:
    """Undo `medmae_name`.

    Raises:
        ValueError: no Swin network has a tensor of that name.
    """
    for theirs, ours in OFFICIAL_TO_MEDMAE:
        if medmae.startswith(ours):
            return theirs + medmae.removeprefix(ours)
    raise ValueError(f"{medmae} is not the name of a tensor of VIS-MAE")


@dataclass(frozen=True)
class OfficialLayout:
    """What an official checkpoint holds, read off its names and shapes.

    kind: which of the three networks; channels: of the image; patch: pixels; width: channels of the first stage;
    depths, heads: of each stage; window: tokens; classes: 0 in pretraining; image_size: pixels of a side in
    pretraining, where the table of positions tells it.
    """

    kind: Kind
    channels: int
    patch: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    classes: int
    image_size: int | None

    @property
    def stride(self) -> int:
        """Pixels of one token of the coarsest stage."""
        return self.patch * 2 ** (len(self.depths) - 1)

    @property
    def architecture(self) -> dict[str, Any]:
        """What `medmae.networks.build_network` builds; padding takes part in the attention, as in training."""
        arguments: dict[str, Any] = {
            "channels": self.channels, "patch": self.patch, "width": self.width, "depths": list(self.depths),
            "heads": list(self.heads), "window": self.window, "drop_path": DROP_PATH, "masked_padding": False}
        more = {"mask_block": MASK_BLOCK} if self.kind == "pretraining" else {"classes": self.classes}
        return {"name": NETWORKS[self.kind], "arguments": arguments | more}


def read_layout(shapes: Shapes, where: str) -> OfficialLayout:
    """Tell the network of an official state dict from its names and shapes.

    Args:
        shapes: official name to shape.
        where: begins the messages, as in "The checkpoint a.pth".

    Raises:
        BadInput: it is none of the three networks, or its parts contradict each other.
    """
    kind = _kind(shapes, where)
    width, channels, patch, _ = _dimensions(shapes, "patch_embed.proj.weight", 4, where)
    depths = _depths(shapes, "layers", where)
    if len(depths) < 2:
        raise BadInput(f"{where} has {len(depths)} encoder stage, but VIS-MAE has two at least (officially four).")
    mirrored = _depths(shapes, "layers_up", where) if kind != "classification" else ()
    if kind != "classification" and mirrored != depths[-2::-1]:
        raise BadInput(f"{where} has an encoder of {_dashed(depths)} blocks and a decoder of {_dashed(mirrored)}, but "
                       f"that of VIS-MAE mirrors its encoder ({_dashed(depths[-2::-1])}). It is another network.")
    tables = [_dimensions(shapes, f"layers.{stage}.blocks.0.attn.relative_position_bias_table", 2, where)
              for stage in range(len(depths))]
    span = math.isqrt(tables[0][0])
    if span**2 != tables[0][0] or span % 2 == 0:
        raise BadInput(f"{where} has tables of {tables[0][0]} relative positions, which no window has (officially 169, "
                       "for windows of 7). It is another network.")
    classes = shapes["head.weight"][0] if kind != "pretraining" else 0
    if kind != "pretraining" and classes < 2:
        raise BadInput(f"{where} tells {classes} class apart, but a {kind} model needs two at least "
                       f"({'the background counts' if kind == 'segmentation' else 'yes and no are two'}).")
    return OfficialLayout(kind=kind, channels=channels, patch=patch, width=width, depths=depths,
                          heads=tuple(heads for _, heads in tables), window=(span + 1) // 2, classes=classes,
                          image_size=_image_size(shapes, patch, len(depths)))


def _kind(shapes: Shapes, where: str) -> Kind:
    head = len(shapes.get("head.weight", ()))
    if "mask_token" in shapes and "decoder_pred.weight" in shapes:
        return "pretraining"
    if "final_patch_expanding.expand.weight" in shapes and head == 4:
        return "segmentation"
    if "norm.weight" in shapes and head == 2 and "layers.0.blocks.0.attn.qkv.weight" in shapes:
        return "classification"
    found = ", ".join(list(shapes)[:5]) + (" ..." if len(shapes) > 5 else "")
    raise BadInput(
        f"{where} is not in the official layout of VIS-MAE. Expected are layers.0.blocks.0.attn.qkv.weight and further "
        "layers, with mask_token and decoder_pred (pretraining), final_patch_expanding and a convolution head "
        f"(segmentation), or norm and a linear head (classification); found: {found}. Check which method made it.")


def _dimensions(shapes: Shapes, name: str, count: int, where: str) -> tuple[int, ...]:
    if name not in shapes:
        raise BadInput(f"{where} is incomplete: {name} is missing. Copy or download the checkpoint again.")
    if len(shapes[name]) != count:
        raise BadInput(f"{where} is not in the official layout of VIS-MAE: {name} has the shape {shapes[name]} instead "
                       f"of {count} axes.")
    return shapes[name]


def _depths(shapes: Shapes, prefix: str, where: str) -> tuple[int, ...]:
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        match = re.match(rf"{prefix}\.(\d{{1,3}})\.blocks\.(\d{{1,3}})\.", name)
        if match:
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    for stage in range(max(blocks, default=0) + 1):
        numbers = blocks.get(stage, set())
        missing = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
        if missing:
            raise BadInput(f"{where} is incomplete: {prefix}.{stage}.blocks.{missing[0]} is missing. "
                           "Copy or download the checkpoint again.")
    return tuple(len(blocks[stage]) for stage in sorted(blocks))


def _image_size(shapes: Shapes, patch: int, stages: int) -> int | None:
    positions = shapes.get("pos_embed", ())
    side = math.isqrt(positions[1]) if len(positions) == 3 else 0
    is_usable = side and side**2 == positions[1] and not side % 2 ** (stages - 1) and side * patch <= LARGEST_SIDE
    return side * patch if is_usable else None


def _dashed(depths: tuple[int, ...]) -> str:
    return "-".join(map(str, depths))
