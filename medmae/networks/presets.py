"""The sizes of every method's networks: ``base`` is the published architecture, ``tiny`` learns on two CPU cores.

Imports nothing heavy, so that listings and command lines can show presets without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from medmae.errors import BadInput

Task = Literal["encoder", "segmentation", "classification"]


@dataclass(frozen=True)
class VisMaePreset:
    """Sizes of VIS-MAE (2-D Swin). Pixels and tokens are (rows, cols)."""

    name: str
    input_size: tuple[int, int]
    patch: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    mask_block: int = 4
    drop_path: float = 0.1
    method: str = "vis-mae"
    spatial_dims: int = 2

    def architecture(self, task: Task, channels: int, classes: int) -> dict[str, Any]:
        """The arguments of `build_network` for a task."""
        arguments: dict[str, Any] = {"channels": channels, "patch": self.patch, "width": self.width,
                                     "depths": list(self.depths), "heads": list(self.heads), "window": self.window,
                                     "drop_path": self.drop_path}
        if task == "encoder":
            return {"name": "swin_mae", "arguments": arguments | {"mask_block": self.mask_block}}
        name = "swin_unet" if task == "segmentation" else "swin_classifier"
        return {"name": name, "arguments": arguments | {"classes": classes}}


@dataclass(frozen=True)
class GlMaePreset:
    """Sizes of GL-MAE (3-D ViT). Voxels are (k, j, i).

    `input_size` is the crop of finetuning and of the sliding window; global and local views belong to pretraining.
    Their numbers are not known from the paper (docs/methods.md). `patch` is one side or the sides (k, j, i).
    With `stem_widths` the networks are the hybrid ones, for which the decoder's width and heads, skip blocks and
    feature size have no meaning; L widths make patches of 2**L voxels.
    With `weighs_places` classifiers pool by learned weights of places, standardised (docs/results/gl-mae.md).
    """

    name: str
    input_size: tuple[int, int, int]
    global_size: tuple[int, int, int]
    local_size: tuple[int, int, int]
    patch: int | tuple[int, int, int]
    width: int
    depth: int
    heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    skip_blocks: tuple[int, ...]
    feature_size: int
    stem_widths: tuple[int, ...] = ()
    weighs_places: bool = False
    global_views: int = 2
    local_views: int = 8
    method: str = "gl-mae"
    spatial_dims: int = 3

    def architecture(self, task: Task, channels: int, classes: int) -> dict[str, Any]:
        """The arguments of `build_network` for a task."""
        if self.stem_widths:
            return self._hybrid(task, channels, classes)
        patch = self.patch if isinstance(self.patch, int) else list(self.patch)
        arguments: dict[str, Any] = {"channels": channels, "patch": patch, "width": self.width,
                                     "depth": self.depth, "heads": self.heads}
        if task == "encoder":
            return {"name": "vit_mae", "arguments": arguments | {
                "decoder_width": self.decoder_width, "decoder_depth": self.decoder_depth,
                "decoder_heads": self.decoder_heads}}
        arguments["classes"] = classes
        if task == "classification":
            return {"name": "vit_classifier", "arguments": arguments | self._pooling()}
        return {"name": "unetr", "arguments": arguments | {
            "skip_blocks": list(self.skip_blocks), "feature_size": self.feature_size}}

    def _pooling(self) -> dict[str, Any]:
        """How a classifier pools: by the weights of places on the grid of the preset's input, or as published."""
        if not self.weighs_places:
            return {}
        patch = 2 ** len(self.stem_widths) if self.stem_widths else self.patch
        sides = (patch,) * 3 if isinstance(patch, int) else patch
        grid = [size // side for size, side in zip(self.input_size, sides, strict=True)]
        return {"pool": "weighted", "standardise": True, "weight_grid": grid}

    def _hybrid(self, task: Task, channels: int, classes: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {"channels": channels, "stem_widths": list(self.stem_widths), "width": self.width,
                                     "depth": self.depth, "heads": self.heads}
        if task == "encoder":
            return {"name": "hybrid_mae", "arguments": arguments | {"decoder_depth": self.decoder_depth}}
        arguments["classes"] = classes
        if task == "classification":
            return {"name": "hybrid_classifier", "arguments": arguments | self._pooling()}
        return {"name": "hybrid_unet", "arguments": arguments | {"decoder_depth": self.decoder_depth}}


Preset = VisMaePreset | GlMaePreset

_GL_TINY = GlMaePreset(
    name="tiny", input_size=(48, 48, 48), global_size=(48, 48, 48), local_size=(32, 32, 32), patch=8, width=192,
    depth=6, heads=6, decoder_width=96, decoder_depth=2, decoder_heads=4, skip_blocks=(2, 4), feature_size=16,
    local_views=4, weighs_places=True)
_GL_SMALL = GlMaePreset(
    name="small", input_size=(96, 96, 96), global_size=(128, 128, 128), local_size=(80, 80, 80), patch=16, width=384,
    depth=12, heads=6, decoder_width=192, decoder_depth=4, decoder_heads=6, skip_blocks=(4, 7, 10), feature_size=24,
    local_views=6)
_GL_BASE = GlMaePreset(
    name="base", input_size=(96, 96, 96), global_size=(160, 160, 160), local_size=(96, 96, 96), patch=16, width=768,
    depth=12, heads=12, decoder_width=576, decoder_depth=8, decoder_heads=16, skip_blocks=(4, 7, 10), feature_size=48)
_GL_BASE_FAST = replace(_GL_BASE, name="base-fast", decoder_width=384, decoder_depth=2, decoder_heads=6)

PRESETS: dict[str, dict[str, Preset]] = {
    "vis-mae": {preset.name: preset for preset in (
        VisMaePreset(name="tiny", input_size=(112, 112), patch=4, width=48, depths=(2, 2, 2), heads=(3, 6, 12)),
        VisMaePreset(name="small", input_size=(224, 224), patch=4, width=64, depths=(2, 2, 2, 2), heads=(2, 4, 8, 16)),
        VisMaePreset(name="base", input_size=(224, 224), patch=4, width=96, depths=(2, 2, 2, 2), heads=(3, 6, 12, 24)),
    )},
    # What follows the size in a name: "fast" has a small decoder; "patch8" finer tokens, eight times as many, hence
    # smaller views and a small decoder; "thin" is for volumes of few, thick slices; "hybrid" has a convolutional stem
    # and a U-Net decoder that is pretrained too, for small volumes and few labels.
    "gl-mae": {preset.name: preset for preset in (
        _GL_TINY,
        _GL_SMALL,
        _GL_BASE,
        replace(_GL_TINY, name="tiny-thin", patch=(2, 8, 8), input_size=(16, 48, 48), global_size=(16, 48, 48),
                local_size=(8, 32, 32)),
        replace(_GL_TINY, name="tiny-hybrid", stem_widths=(16, 32, 64), depth=4, input_size=(32, 48, 32),
                global_size=(32, 48, 32), local_size=(24, 24, 24), local_views=2),
        replace(_GL_SMALL, name="small-patch8", patch=8, input_size=(64, 64, 64), global_size=(64, 64, 64),
                local_size=(40, 40, 40), decoder_depth=2, skip_blocks=(5, 9)),
        replace(_GL_SMALL, name="small-thin", patch=(4, 16, 16), input_size=(32, 128, 128), global_size=(32, 128, 128),
                local_size=(16, 80, 80)),
        _GL_BASE_FAST,
        replace(_GL_BASE_FAST, name="base-patch8", patch=8, global_size=(96, 96, 96), local_size=(64, 64, 64),
                skip_blocks=(5, 9)),
        # The window is the crop of the paper for a lung CT of 5 mm slices (Covid-19-20: 192 x 192 x 32).
        replace(_GL_BASE, name="base-thin", patch=(4, 16, 16), input_size=(32, 192, 192), global_size=(32, 160, 160),
                local_size=(16, 96, 96)),
    )},
}


def methods() -> tuple[str, ...]:
    """The names of the pretraining methods."""
    return tuple(PRESETS)


def preset_names() -> tuple[str, ...]:
    """The names of all presets of all methods; not every method has each of them."""
    return tuple(dict.fromkeys(name for named in PRESETS.values() for name in named))


def preset_size(name: str) -> str:
    """The size in a preset's name, the part before "-": what holds for "base" holds for "base-fast" unless said."""
    return name.partition("-")[0]


def spread_skip_blocks(depth: int, count: int) -> tuple[int, ...]:
    """`count` blocks, counted from 1, evenly spread over `depth`: 4, 7, 10 of 12 as published, 5, 9 for two."""
    return tuple(1 + depth * (number + 1) // (count + 1) for number in range(count))


def preset(method: str, name: str) -> Preset:
    """The preset of a method.

    Raises:
        BadInput: the method or the preset does not exist; the valid ones are listed.
    """
    if method not in PRESETS:
        raise BadInput(f"There is no method {method!r}. Choose one of {', '.join(PRESETS)}.")
    if name not in PRESETS[method]:
        raise BadInput(f"{method} has no preset {name!r}. Choose one of {', '.join(PRESETS[method])}.")
    return PRESETS[method][name]


def architecture_for(method: str, preset_or_name: Preset | str, task: Task, channels: int,
                     classes: int = 0) -> dict[str, Any]:
    """The architecture, as `build_network` and model.json want it, of a method's network for a task.

    Args:
        method: "vis-mae" or "gl-mae".
        preset_or_name: a preset or its name.
        task: "encoder" (the pretraining network), "segmentation" or "classification".
        channels: image channels.
        classes: classes, including background in segmentation; not used for "encoder".

    Raises:
        BadInput: the method or preset does not exist.
    """
    chosen = preset(method, preset_or_name) if isinstance(preset_or_name, str) else preset_or_name
    return chosen.architecture(task, channels, classes)


_Widths = dict[str, tuple[int, ...]]
UNET_WIDTHS: _Widths = {
    "tiny": (16, 32, 64, 128, 256), "small": (24, 48, 96, 192, 384), "base": (32, 64, 128, 256, 512)}
DYN_UNET_WIDTHS: _Widths = {
    "tiny": (24, 48, 96, 192), "small": (32, 64, 128, 256, 320), "base": (32, 64, 128, 256, 320, 320)}
BASELINES: dict[str, tuple[str, _Widths]] = {
    "unet": ("plain_unet", UNET_WIDTHS), "dynunet": ("dyn_unet", DYN_UNET_WIDTHS)}


def baseline_architecture(network: str, preset_name: str, spatial_dims: int, channels: int,
                          classes: int) -> dict[str, Any]:
    """The architecture of a convolutional baseline that stands beside a preset's networks.

    Args:
        network: "unet" (MONAI's UNet) or "dynunet" (MONAI's DynUNet).
        preset_name: says how large it is; what follows the size in a preset's name ("base-fast") makes no difference.
        spatial_dims, channels, classes: of images and result.

    Raises:
        BadInput: there is no such preset.
    """
    name, widths = BASELINES[network]
    size = preset_size(preset_name)
    if size not in widths:
        raise BadInput(f"There is no {network} for the preset {preset_name!r}. Choose one of {', '.join(widths)}.")
    return {"name": name, "arguments": {"channels": channels, "classes": classes, "spatial_dims": spatial_dims,
                                        "widths": list(widths[size])}}
