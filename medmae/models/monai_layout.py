"""The layout of MONAI's vision transformers: ViT, UNETR and MaskedAutoEncoderViT, as their state dicts name things.

Source: the classes of MONAI 1.6 and the names that they register (docs/importing.md). Needs no torch; tensors are known
by their shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from medmae.errors import BadInput
from medmae.models.gl_mae_layout import Grid, Shapes, depth, dimensions

Kind = Literal["ViT", "ViT classifier", "UNETR", "MaskedAutoEncoderViT"]

TASKS: dict[Kind, Literal["encoder", "segmentation", "classification"]] = {
    "ViT": "encoder", "ViT classifier": "classification", "UNETR": "segmentation", "MaskedAutoEncoderViT": "encoder"}
NETWORKS: dict[Kind, str] = {
    "ViT": "vit_alone", "ViT classifier": "vit_classifier", "UNETR": "unetr", "MaskedAutoEncoderViT": "vit_mae"}
NORM_EPS = 1e-5
SKIP_BLOCKS = (4, 7, 10)  # MONAI's hidden states 3, 6 and 9, counted from 1
NOT_USED = re.compile(r".*\.(norm_cross_attn|cross_attn)\..*")  # registered by every block, used by none of these
TABLE, STEM = "patch_embedding.position_embeddings", "patch_embedding.patch_embeddings"
_BLOCK = (("attn.out_proj.", "attn.proj."), ("attn.qkv.", "attn.qkv."), ("mlp.linear1.", "mlp.fc1."),
          ("mlp.linear2.", "mlp.fc2."), ("norm1.", "norm1."), ("norm2.", "norm2."))
_PARTS = (("cls_token", "encoder.cls_token"), (TABLE, "encoder.position_table"),
          ("mask_tokens", "decoder.mask_token"), ("decoder_pos_embedding", "decoder.position_table"),
          ("decoder_embed.weight", "decoder.embed.weight"), ("decoder_embed.bias", "decoder.embed.bias"),
          ("decoder_pred.weight", "decoder.pred.weight"), ("decoder_pred.bias", "decoder.pred.bias"),
          ("norm.weight", "encoder.norm.weight"), ("norm.bias", "encoder.norm.bias"),
          ("classification_head.weight", "head.weight"), ("classification_head.bias", "head.bias"),
          ("out.conv.conv.weight", "head.weight"), ("out.conv.conv.bias", "head.bias"),
          (f"{STEM}.weight", "encoder.patch_embed.proj.weight"), (f"{STEM}.bias", "encoder.patch_embed.proj.bias"),
          (f"{STEM}.1.weight", "encoder.patch_embed.proj.weight"), (f"{STEM}.1.bias", "encoder.patch_embed.proj.bias"))


@dataclass(frozen=True)
class MonaiLayout:
    """What a state dict of MONAI holds, read off its names and shapes.

    kind: the class; channels: of the volume; patch: voxels along the axes; width, depth, mlp: of the encoder;
    positions: rows of its table; decoder_width, decoder_depth, decoder_mlp: 0 without a decoder of tokens; classes: 0
    where there are none; feature_size: of UNETR, else 0; perceptron: whether the stem is one, not a convolution.
    """

    kind: Kind
    channels: int
    patch: Grid
    width: int
    depth: int
    mlp: int
    positions: int
    decoder_width: int = 0
    decoder_depth: int = 0
    decoder_mlp: int = 0
    classes: int = 0
    feature_size: int = 0
    perceptron: bool = False

    def architecture(self, grid: Grid, heads: int, decoder_heads: int) -> dict[str, Any]:
        """What `medmae.networks.build_network` builds."""
        patch: int | list[int] = self.patch[0] if len(set(self.patch)) == 1 else list(self.patch)
        arguments: dict[str, Any] = {
            "channels": self.channels, "patch": patch, "width": self.width, "depth": self.depth, "heads": heads,
            "mlp_width": self.mlp, "norm_eps": NORM_EPS, "position_grid": list(grid)}
        if self.kind == "UNETR":
            arguments |= {"classes": self.classes, "skip_blocks": list(SKIP_BLOCKS), "feature_size": self.feature_size}
        elif self.kind == "ViT classifier":
            arguments |= {"classes": self.classes, "pool": "cls"}
        elif self.kind == "ViT":
            arguments["class_token"] = False
        else:
            arguments |= {"decoder_width": self.decoder_width, "decoder_depth": self.decoder_depth,
                          "decoder_heads": decoder_heads, "decoder_mlp_width": self.decoder_mlp,
                          "decoder_class_token": True}
        return {"name": NETWORKS[self.kind], "arguments": arguments}


def read_layout(shapes: Shapes, where: str) -> MonaiLayout:
    """Tell the network and its sizes.

    Args:
        shapes: name to shape, without prefixes of wrappers.
        where: begins the messages, as in "The checkpoint a.pth".

    Raises:
        BadInput: it is none of the classes, two-dimensional, or of a kind that cannot be represented.
    """
    kind = _kind(shapes, where)
    vit = {name.removeprefix("vit."): shape for name, shape in shapes.items()}
    _, positions, width = dimensions(vit, TABLE, 3, where)
    channels, patch = _stem(vit, shapes, where)
    blocks = depth(vit, "blocks", where)
    layout: dict[str, Any] = {"kind": kind, "channels": channels, "patch": patch, "width": width, "depth": blocks,
              "mlp": dimensions(vit, "blocks.0.mlp.linear1.weight", 2, where)[0], "positions": positions,
              "perceptron": f"{STEM}.1.weight" in vit}
    if kind == "UNETR":
        layout["feature_size"] = dimensions(shapes, "encoder1.layer.conv1.conv.weight", 5, where)[0]
        layout["classes"] = dimensions(shapes, "out.conv.conv.weight", 5, where)[0]
    elif kind == "ViT classifier":
        layout["classes"] = dimensions(shapes, "classification_head.weight", 2, where)[0]
    elif kind == "MaskedAutoEncoderViT":
        layout |= {"depth": blocks - 1, "decoder_width": dimensions(shapes, "decoder_embed.weight", 2, where)[0],
                   "decoder_depth": depth(shapes, "decoder_blocks", where) - 1,
                   "decoder_mlp": dimensions(shapes, "decoder_blocks.0.mlp.linear1.weight", 2, where)[0]}
    return MonaiLayout(**layout)


def medmae_name(name: str, layout: MonaiLayout) -> str | None:
    """The name that a tensor has in MedMAE; None for one without a place in its networks."""
    plain = name.removeprefix("vit.")
    for theirs, ours in _PARTS:
        if plain == theirs:
            return ours
    match = re.fullmatch(r"(decoder_)?blocks\.(\d{1,3})\.(.+)", plain)
    if match is None:
        return _unetr_name(name) if layout.kind == "UNETR" else None
    part, number = ("decoder" if match[1] else "encoder"), int(match[2])
    if number == (layout.decoder_depth if match[1] else layout.depth) and match[3] in ("weight", "bias"):
        return f"{part}.norm.{match[3]}"  # the last "block" of the masked autoencoder is its norm
    return next((f"{part}.blocks.{number}.{ours}{match[3].removeprefix(theirs)}" for theirs, ours in _BLOCK
                 if match[3].startswith(theirs)), None)


def _unetr_name(name: str) -> str | None:
    """Names of UNETR's convolutional half: encoder1 sees the image, encoder2..4 the hidden states, decoder5..2 join."""
    if match := re.fullmatch(r"encoder1\.layer\.(conv[123])\.conv\.weight", name):
        return f"decoder.image_block.{match[1]}.weight"
    if match := re.fullmatch(r"encoder([234])\.transp_conv_init\.conv\.weight", name):
        return f"decoder.skip_paths.{int(match[1]) - 2}.0.weight"
    if match := re.fullmatch(r"encoder([23])\.blocks\.(\d)\.0\.conv\.weight", name):
        return f"decoder.skip_paths.{int(match[1]) - 2}.{2 * int(match[2]) + 1}.weight"
    if match := re.fullmatch(r"encoder([23])\.blocks\.(\d)\.1\.(conv[123])\.conv\.weight", name):
        return f"decoder.skip_paths.{int(match[1]) - 2}.{2 * int(match[2]) + 2}.{match[3]}.weight"
    if match := re.fullmatch(r"decoder([2345])\.transp_conv\.conv\.weight", name):
        return f"decoder.up_blocks.{int(match[1]) - 2}.up.weight"
    if match := re.fullmatch(r"decoder([2345])\.conv_block\.(conv[123])\.conv\.weight", name):
        return f"decoder.up_blocks.{int(match[1]) - 2}.mix.{match[2]}.weight"
    return None


def _kind(shapes: Shapes, where: str) -> Kind:
    if "classification_head.0.weight" in shapes:
        raise BadInput(f"{where} is a ViT whose classification head ends in a tanh (post_activation), which MedMAE's "
                       "classifiers do not have. Leave the names classification_head.* and cls_token out of the state "
                       "dict to import the encoder.")
    if "vit.blocks.0.attn.qkv.weight" in shapes and "encoder1.layer.conv1.conv.weight" in shapes:
        return "UNETR"
    if "blocks.0.attn.qkv.weight" in shapes and TABLE in shapes:
        if "mask_tokens" in shapes:
            return "MaskedAutoEncoderViT"
        return "ViT classifier" if "classification_head.weight" in shapes else "ViT"
    found = ", ".join(list(shapes)[:5]) + (" ..." if len(shapes) > 5 else "")
    raise BadInput(f"{where} is none of MONAI's ViT, UNETR and MaskedAutoEncoderViT. Expected are "
                   f"blocks.0.attn.qkv.weight and {TABLE}; found: {found}. Check which program made it.")


def _stem(vit: Shapes, shapes: Mapping[str, tuple[int, ...]], where: str) -> tuple[int, Grid]:
    """Channels and patch. A perceptron shows only their product: the fewest channels that leave a cube."""
    convolution = vit.get(f"{STEM}.weight")
    if convolution is not None:
        if len(convolution) != 5:
            raise BadInput(f"{where} is a {len(convolution) - 2}-dimensional ViT, but MedMAE's see volumes. It cannot "
                           "be represented.")
        return convolution[1], (convolution[2], convolution[3], convolution[4])
    values = dimensions(vit, f"{STEM}.1.weight", 2, where)[1]
    image = shapes.get("encoder1.layer.conv1.conv.weight")
    for channels in [image[1]] if image is not None and len(image) == 5 else range(1, 17):
        side = round((values / channels) ** (1 / 3))
        if side > 1 and channels * side**3 == values:
            return channels, (side, side, side)
    raise BadInput(f"{where} has a perceptron for patches of {values} values, which are no cubes of any number of "
                   "channels up to 16. It cannot be represented.")
