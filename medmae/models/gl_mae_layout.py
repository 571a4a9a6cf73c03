"""The layout of what the authors' code of GL-MAE saves: its names, and the sizes of the network.

Source: the published description of the file format (docs/importing.md). Needs no torch; tensors are known by their
shapes alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from medmae.errors import BadInput

Shapes = Mapping[str, tuple[int, ...]]
Grid = tuple[int, int, int]

OFFICIAL_TO_MEDMAE = (
    ("cls_token", "encoder.cls_token"), ("pos_embed", "encoder.position_table"),
    ("patch_embed.", "encoder.patch_embed."), ("blocks.", "encoder.blocks."), ("norm.", "encoder.norm."),
    ("decoder_embed.", "decoder.embed."), ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.position_table"), ("decoder_blocks.", "decoder.blocks."),
    ("decoder_norm.", "decoder.norm."), ("decoder_pred.", "decoder.pred."),
)
WRAPPERS = ("module.", "_orig_mod.", "backbone.")  # DistributedDataParallel, torch.compile, DINO's multi-crop wrapper
NOT_USED = re.compile(r"head\..*")  # the projector onto which consistency is asked for, and heads that nothing applies
PUBLISHED_HEADS = {768: 12, 1024: 16, 1280: 16}  # width of ViT-B, -L, -H to heads
HEAD_WIDTH = 64
DECODER_HEADS = 16


def official_name(saved: str) -> str:
    """The name of a tensor without what wrappers put before it."""
    stripped = next((saved.removeprefix(wrapper) for wrapper in WRAPPERS if saved.startswith(wrapper)), None)
    return saved if stripped is None else official_name(stripped)


def medmae_name(official: str) -> str | None:
    """The name that a tensor has in `medmae.networks.VitMae`; None for one that it does not have."""
    return next((ours + official.removeprefix(theirs) for theirs, ours in OFFICIAL_TO_MEDMAE
                 if (official.startswith(theirs) if theirs.endswith(".") else official == theirs)), None)


def medmae_to_official(medmae: str) -> str:
    """Undo `medmae_name`.

    Raises:
        ValueError: the network has no tensor of that name.
    """
    for theirs, ours in OFFICIAL_TO_MEDMAE:
        if medmae.startswith(ours) if ours.endswith(".") else medmae == ours:
            return theirs + medmae.removeprefix(ours)
    raise ValueError(f"{medmae} is not the name of a tensor of GL-MAE")


@dataclass(frozen=True)
class GlMaeLayout:
    """What a checkpoint holds, read off its names and shapes.

    channels: of the volume; patch: voxels (k, j, i); width, depth: of the encoder; mlp: width of its perceptrons;
    positions: rows of its table; decoder_width, decoder_depth: 0 where the checkpoint has no decoder.
    """

    channels: int
    patch: Grid
    width: int
    depth: int
    mlp: int
    positions: int
    decoder_width: int
    decoder_depth: int


def read_layout(shapes: Shapes, where: str) -> GlMaeLayout:
    """Tell the sizes of the network from a state dict without prefixes.

    Args:
        shapes: official name to shape.
        where: begins the messages, as in "The checkpoint a.pth".

    Raises:
        BadInput: it is no three-dimensional vision transformer, or its parts contradict each other.
    """
    if "patch_embed.proj.weight" not in shapes or "blocks.0.attn.qkv.weight" not in shapes:
        found = ", ".join(list(shapes)[:5]) + (" ..." if len(shapes) > 5 else "")
        raise BadInput(f"{where} is not in the official layout of GL-MAE. Expected are patch_embed.proj.weight, "
                       f"pos_embed, cls_token and blocks.0.attn.qkv.weight; found: {found}. Check which method made "
                       "it.")
    width, channels, *patch = dimensions(shapes, "patch_embed.proj.weight", 5, where)
    _, positions, _ = dimensions(shapes, "pos_embed", 3, where)
    mlp = dimensions(shapes, "blocks.0.mlp.fc1.weight", 2, where)[0]
    has_decoder = any(name.startswith("decoder_") or name == "mask_token" for name in shapes)
    decoder_width = dimensions(shapes, "decoder_embed.weight", 2, where)[0] if has_decoder else 0
    if mlp != 4 * width:
        raise BadInput(f"{where} has perceptrons {mlp} wide in blocks {width} wide, but GL-MAE's are four times as "
                       "wide as its blocks. It is another network.")
    return GlMaeLayout(
        channels=channels, patch=(patch[0], patch[1], patch[2]), width=width, depth=depth(shapes, "blocks", where),
        mlp=mlp, positions=positions, decoder_width=decoder_width,
        decoder_depth=depth(shapes, "decoder_blocks", where) if has_decoder else 0)


def dimensions(shapes: Shapes, name: str, count: int, where: str) -> tuple[int, ...]:
    """The shape of a tensor that must be there with `count` axes.

    Raises:
        BadInput: it is missing or has another number of axes.
    """
    if name not in shapes:
        raise BadInput(f"{where} is incomplete: {name} is missing. Copy or download the checkpoint again.")
    if len(shapes[name]) != count or 0 in shapes[name]:
        raise BadInput(f"{where} is not in the expected layout: {name} has the shape {shapes[name]} instead of "
                       f"{count} axes.")
    return shapes[name]


def depth(names: Iterable[str], prefix: str, where: str) -> int:
    """How many blocks there are, named "PREFIX.0." and so on.

    Raises:
        BadInput: there is none, or one between others is missing.
    """
    numbers = {int(match[1]) for name in names if (match := re.match(rf"{re.escape(prefix)}\.(\d{{1,3}})\.", name))}
    missing = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if missing:
        raise BadInput(f"{where} is incomplete: {prefix}.{missing[0]} is missing. "
                       "Copy or download the checkpoint again.")
    return len(numbers)


def encoder_heads(width: int, asked: int | None, where: str) -> int:
    """Attention heads of an encoder, which no tensor shows: as asked, as published, or one for 64 channels.

    Raises:
        BadInput: they do not divide the width.
    """
    return _dividing(width, asked or PUBLISHED_HEADS.get(width) or max(1, width // HEAD_WIDTH), "--heads", where)


def decoder_heads(width: int, asked: int | None, where: str) -> int:
    """Attention heads of a decoder: as asked, or 16, which all of the authors' decoders have.

    Raises:
        BadInput: they do not divide the width.
    """
    return _dividing(width, asked or DECODER_HEADS, "--decoder-heads", where)


def _dividing(width: int, heads: int, option: str, where: str) -> int:
    if width % heads:
        raise BadInput(f"{where} is {width} wide, which {heads} heads do not divide. No tensor shows how many heads "
                       f"there are; look it up where the network was defined and give it ({option}).")
    return heads


def table_grid(rows: int, asked: Grid | None, where: str) -> tuple[Grid, bool]:
    """The grid (k, j, i) of a table of positions, and whether its first row is that of CLS.

    Args:
        rows: of the table.
        asked: the grid, where it is known; otherwise it must be a cube.
        where: begins the messages.

    Raises:
        BadInput: no cube has that many tokens, or `asked` has another number.
    """
    if asked is not None:
        if math.prod(asked) not in (rows, rows - 1):
            raise BadInput(f"{where} has a table of {rows} positions, but a grid of {' x '.join(map(str, asked))} has "
                           f"{math.prod(asked)} tokens (and CLS may have a row). Correct --grid k,j,i.")
        return asked, math.prod(asked) == rows - 1
    for tokens, has_cls in ((rows - 1, True), (rows, False)):
        side = round(tokens ** (1 / 3))
        if side >= 1 and side**3 == tokens:
            return (side, side, side), has_cls
    raise BadInput(f"{where} has a table of {rows} positions, which is no cube of tokens, with or without CLS. Which "
                   "grid they form cannot be told from their number; give it as the tokens along the three axes "
                   "(--grid k,j,i), in the order of the axes of the input.")
