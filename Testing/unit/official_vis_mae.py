"""Checkpoints in the official VIS-MAE layout, made from formulas: names and shapes as published, no fetched file.

The numbers in golden/vis_mae_official.json were taken from the official classes, run as an oracle with exactly these
weights, images and masks. Importing and running the same checkpoint here must give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden" / "vis_mae_official.json"
SAMPLES = 64


@dataclass(frozen=True)
class OfficialNet:
    """The sizes of one official network; `kind` is pretraining, segmentation or classification."""

    kind: str
    channels: int = 3
    width: int = 32
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    window: int = 7
    classes: int = 0
    image: int = 224


BASE: dict[str, Any] = {"width": 96, "heads": (3, 6, 12, 24)}
# name: (network, side of the square input). 224 fits windows of 7; 320 (the official size for segmentation) does not.
CASES: dict[str, tuple[OfficialNet, int]] = {
    "pretraining": (OfficialNet("pretraining"), 224),
    "pretraining of one channel at a size that needs padding": (OfficialNet("pretraining", channels=1, image=160), 160),
    "segmentation": (OfficialNet("segmentation", depths=(2, 2, 6, 2), classes=5), 224),
    "segmentation at a size that needs padding": (OfficialNet("segmentation", depths=(2, 2, 6, 2), classes=5), 320),
    "segmentation of three stages and another window":
        (OfficialNet("segmentation", channels=1, depths=(1, 3, 2), heads=(2, 4, 8), window=5, classes=2), 96),
    "classification": (OfficialNet("classification", classes=3), 224),
    "pretraining, base": (OfficialNet("pretraining", **BASE), 224),
    "pretraining of one channel, base": (OfficialNet("pretraining", channels=1, **BASE), 224),
    "segmentation, base": (OfficialNet("segmentation", depths=(2, 2, 6, 2), classes=14, **BASE), 320),
    "segmentation of one channel, base":
        (OfficialNet("segmentation", channels=1, depths=(2, 2, 6, 2), classes=3, **BASE), 224),
    "classification, base": (OfficialNet("classification", classes=2, **BASE), 224),
    "classification of one channel, base": (OfficialNet("classification", channels=1, classes=2, **BASE), 224),
}


def official_shapes(net: OfficialNet) -> dict[str, tuple[int, ...]]:
    """Every name in the official state dict and its shape."""
    width, stages = net.width, len(net.depths)
    shapes: dict[str, tuple[int, ...]] = {}
    if net.kind == "pretraining":
        shapes |= {"pos_embed": (1, (net.image // 4) ** 2, width), "mask_token": (1, 1, width)}
    shapes |= {"patch_embed.proj.weight": (width, net.channels, 4, 4), "patch_embed.proj.bias": (width,),
               **_norm("patch_embed.norm", width)}
    for stage in range(stages):
        for block in range(net.depths[stage]):
            shapes |= _block(f"layers.{stage}.blocks.{block}", width * 2**stage, net.heads[stage], net.window)
        if stage < stages - 1:
            merged = width * 2**stage
            shapes |= {**_norm(f"layers.{stage}.downsample.norm", 4 * merged),
                       f"layers.{stage}.downsample.reduction.weight": (2 * merged, 4 * merged)}
    last = width * 2 ** (stages - 1)
    if net.kind == "classification":
        return shapes | {**_norm("norm", last), "head.weight": (net.classes, last), "head.bias": (net.classes,)}
    shapes |= _expanding("first_patch_expanding", last)
    for up in range(stages - 1):
        stage = stages - 2 - up
        for block in range(net.depths[stage]):
            shapes |= _block(f"layers_up.{up}.blocks.{block}", width * 2**stage, net.heads[stage], net.window)
        if stage:
            shapes |= _expanding(f"layers_up.{up}.upsample", width * 2**stage)
        if net.kind == "segmentation":
            shapes |= {f"skip_connection_layers.{up}.weight": (width * 2**stage, 2 * width * 2**stage, 1, 1),
                       f"skip_connection_layers.{up}.bias": (width * 2**stage,)}
    shapes |= _norm("norm_up", width)
    if net.kind == "pretraining":
        return shapes | {"decoder_pred.weight": (16 * net.channels, width), "decoder_pred.bias": (16 * net.channels,)}
    return shapes | {"final_patch_expanding.expand.weight": (16 * width, width),
                     **_norm("final_patch_expanding.norm", width), "head.weight": (net.classes, width, 1, 1)}


def official_state(net: OfficialNet) -> dict[str, torch.Tensor]:
    """The official state dict, filled by the formula."""
    return {name: formula_tensor(name, shape) for name, shape in official_shapes(net).items()}


def formula_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights that look random and keep activations at a healthy size, from name and place alone."""
    if name.endswith("relative_position_index"):
        return torch.zeros(shape, dtype=torch.int64)  # a constant of the official code, not a weight
    spread = _spread(zlib.crc32(name.encode()), math.prod(shape)).reshape(shape)
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "norm_up.weight")):
        values = 1 + 0.4 * spread
    elif len(shape) >= 2 and name.endswith("weight"):
        values = spread * math.sqrt(24 / (shape[0] + math.prod(shape[1:])))
    else:
        values = (2.0 if name.endswith("table") else 0.4) * spread
    return torch.from_numpy(values.astype(np.float32))


def formula_images(batch: int, channels: int, side: int) -> torch.Tensor:
    """(B, C, side, side): waves and noise, about standardised."""
    rows, cols = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    waves = np.stack([[np.sin(rows / (5 + image + 2 * channel)) * np.cos(cols / (9 - image - channel))
                       for channel in range(channels)] for image in range(batch)])
    return torch.from_numpy((waves + _spread(7, waves.size).reshape(waves.shape)).astype(np.float32))


def formula_mask(batch: int, side: int) -> torch.Tensor:
    """(B, blocks, blocks) bool, True = masked, about three quarters of the blocks of 16 pixels."""
    blocks = side // 16
    return torch.from_numpy(_spread(11, batch * blocks**2).reshape(batch, blocks, blocks) < 0.25)


def official_checkpoint(state: dict[str, Any], *, epoch: int | str = 799) -> dict[str, Any]:
    """The dictionary that the official code saves."""
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)}},
                 "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95), "params": [0]}]}
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
              "_growth_tracker": 0}
    args = argparse.Namespace(batch_size=640, epochs=800, model="swin_mae", input_size=224, norm_pix_loss=False)
    return {"model": state, "optimizer": optimizer, "epoch": epoch, "scaler": scaler, "args": args}


def write_checkpoint(path: Path, net: OfficialNet) -> Path:
    """Save a network as the official code does."""
    torch.save(official_checkpoint(official_state(net)), path)
    return path


def summary(output: torch.Tensor) -> dict[str, Any]:
    """Some numbers that stand for an output."""
    values = output.detach().double().flatten()
    places = (torch.arange(SAMPLES) * 2654435761) % len(values)
    return {"shape": list(output.shape), "samples": values[places].tolist(), "mean": values.mean().item(),
            "std": values.std().item(), "largest": values.abs().max().item()}


def golden() -> dict[str, dict[str, dict[str, Any]]]:
    """Case name to output name to `summary` of what the official network answered."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def relative_difference(output: torch.Tensor, expected: dict[str, Any]) -> float:
    """max|difference| / max|official| over the samples and the moments."""
    found = summary(output)
    assert found["shape"] == expected["shape"]
    differences = np.abs(np.subtract(found["samples"], expected["samples"])).tolist()
    differences += [abs(found[key] - expected[key]) for key in ("mean", "std", "largest")]
    return max(differences) / expected["largest"]


def _spread(seed: int, count: int) -> np.ndarray:
    """`count` numbers in [-0.5, 0.5) without visible order: integer arithmetic, so the same on every machine."""
    mixed = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed * 2 + 1)
    for shift, factor in ((31, 0xD6E8FEB86659FD93), (29, 0xA0761D6478BD642F)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _expanding(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.expand.weight": (2 * width, width), **_norm(f"{name}.norm", width // 2)}


def _block(name: str, width: int, heads: int, window: int) -> dict[str, tuple[int, ...]]:
    return {**_norm(f"{name}.norm1", width),
            f"{name}.attn.relative_position_bias_table": ((2 * window - 1) ** 2, heads),
            f"{name}.attn.relative_position_index": (window**2, window**2),
            **_linear(f"{name}.attn.qkv", width, 3 * width), **_linear(f"{name}.attn.proj", width, width),
            **_norm(f"{name}.norm2", width), **_linear(f"{name}.mlp.fc1", width, 4 * width),
            **_linear(f"{name}.mlp.fc2", 4 * width, width)}
