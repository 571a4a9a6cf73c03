"""Checkpoints in the official GL-MAE layout, made from formulas: names and shapes as published, no fetched file.

The numbers in golden/gl_mae_official.json were taken from the official class, run as an oracle with exactly these
weights and volumes. Importing and running the same checkpoint here must give the same numbers. To take them again, with
a checkout of the official repository and the timm package that it needs:

    python Testing/unit/official_gl_mae.py --official PATH/TO/GL-MAE
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from official_vis_mae import _linear, _norm, _spread, formula_tensor, summary
from torch.nn import functional

GOLDEN = Path(__file__).parent / "golden" / "gl_mae_official.json"
Size = tuple[int, int, int]


@dataclass(frozen=True)
class OfficialVit:
    """The sizes of an official network; `image` is that of its table of positions, `decoder` its width, or 0.

    positions: "learned" (any numbers, the row of CLS too), "sin-cos" or "zeros".
    """

    channels: int = 1
    patch: int = 16
    width: int = 128
    depth: int = 3
    heads: int = 2
    image: Size = (96, 96, 96)
    decoder: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 16
    positions: str = "learned"

    @property
    def grid(self) -> Size:
        k, j, i = (side // self.patch for side in self.image)
        return k, j, i


ENCODER = OfficialVit(decoder=0)
BASE: dict[str, Any] = {"width": 768, "depth": 12, "heads": 12}
# name: (network, size of the volume that it is shown)
CASES: dict[str, tuple[OfficialVit, Size]] = {
    "encoder and decoder": (OfficialVit(), (96, 96, 96)),
    "sin-cos positions": (OfficialVit(width=192, heads=3, positions="sin-cos"), (96, 96, 96)),
    "positions that are all zeros": (OfficialVit(positions="zeros", decoder=0), (96, 96, 96)),
    "two channels and a patch of 8": (OfficialVit(channels=2, patch=8, image=(32, 32, 32)), (32, 32, 32)),
    "a larger volume than that of the table": (ENCODER, (160, 160, 160)),
    "a smaller volume than that of the table": (OfficialVit(decoder=0, image=(160, 160, 160)), (96, 96, 96)),
    "a thin volume whose grid the official code guesses wrong": (ENCODER, (96, 96, 48)),
    "a table that is no cube": (OfficialVit(decoder=0, image=(32, 48, 96)), (32, 48, 96)),
    "base, encoder alone": (OfficialVit(decoder=0, **BASE), (96, 96, 96)),
    "base, decoder of 576": (OfficialVit(decoder=576, decoder_depth=8, positions="sin-cos", **BASE), (96, 96, 96)),
    "base, decoder of 512": (OfficialVit(decoder=512, decoder_depth=8, **BASE), (96, 96, 96)),
}


def official_shapes(net: OfficialVit) -> dict[str, tuple[int, ...]]:
    """Every name in the official state dict and its shape."""
    width, decoder, tokens = net.width, net.decoder, int(np.prod(net.grid))
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width), "pos_embed": (1, tokens + 1, width),
        "patch_embed.proj.weight": (width, net.channels, *(net.patch,) * 3), "patch_embed.proj.bias": (width,)}
    for block in range(net.depth):
        shapes |= _block(f"blocks.{block}", width)
    shapes |= _norm("norm", width)
    if not decoder:
        return shapes
    shapes |= {**_linear("decoder_embed", width, decoder), "mask_token": (1, 1, decoder),
               "decoder_pos_embed": (1, tokens + 1, decoder)}
    for block in range(net.decoder_depth):
        shapes |= _block(f"decoder_blocks.{block}", decoder)
    return shapes | _norm("decoder_norm", decoder) | _linear("decoder_pred", decoder, net.patch**3 * net.channels)


def official_state(net: OfficialVit) -> dict[str, torch.Tensor]:
    """The official state dict, filled by the formula."""
    state = {name: formula_tensor(name, shape) for name, shape in official_shapes(net).items()}
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in state and net.positions != "learned":
            state[name] = (torch.zeros_like(state[name]) if net.positions == "zeros"
                           else sin_cos(net.grid, state[name].shape[2]))
    return state


def sin_cos(grid: Size, width: int) -> torch.Tensor:
    """The authors' table (1, 1 + tokens, width): a row of zeros, then thirds for axis 0, 1 and 2, each sin and cos."""
    places = np.indices(grid).reshape(3, -1)
    frequencies = 10000.0 ** (-np.arange(width // 6) / (width / 6))
    thirds = [np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
              for angles in (places[axis][:, None] * frequencies for axis in range(3))]
    table = np.concatenate([np.zeros((1, width)), np.concatenate(thirds, axis=1)])
    return torch.from_numpy(table[None].astype(np.float32))


def projector(width: int) -> dict[str, torch.Tensor]:
    """DINO's projector, as it lies beside the backbone."""
    return {"head.mlp.0.weight": torch.ones(8, width), "head.mlp.0.bias": torch.ones(8),
            "head.last_layer.weight_g": torch.ones(4, 1), "head.last_layer.weight_v": torch.ones(4, 8)}


def official_checkpoint(net: OfficialVit, *, epoch: int = 1599) -> dict[str, Any]:
    """The dictionary that DINO-like training saves: the student wrapped, the teacher half as large in every weight."""
    state, head = official_state(net), projector(net.width)
    student = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    teacher = {f"backbone.{name}": tensor / 2 for name, tensor in state.items()}
    return {"student": student | {f"module.{name}": tensor for name, tensor in head.items()}, "teacher": teacher | head,
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "params": [0]}]}, "epoch": epoch,
            "args": argparse.Namespace(arch="vit_base", epochs=1600), "dino_loss": {"center": torch.zeros(1, 4)}}


def write_checkpoint(path: Path, net: OfficialVit) -> Path:
    """Save a network as the official code does."""
    torch.save(official_checkpoint(net), path)
    return path


def formula_volume(channels: int, size: Size) -> torch.Tensor:
    """(1, C, *size): waves and noise in about [0, 1], different along every axis."""
    k, j, i = np.indices(size)
    waves = np.stack([np.sin(k / (7 + channel)) * np.cos(j / 11) + np.sin(i / 17 + j / 29)
                      for channel in range(channels)])
    noise = _spread(13, waves.size).reshape(waves.shape)
    return torch.from_numpy((0.5 + 0.2 * waves + 0.2 * noise).astype(np.float32))[None]


def formula_keep(tokens: int) -> torch.Tensor:
    """(1, n) ascending places, about a quarter of the tokens."""
    return torch.from_numpy(np.flatnonzero(_spread(17, tokens) < -0.25))[None]


def golden() -> dict[str, dict[str, dict[str, Any]]]:
    """Case name to output name to `summary` of what the official network answered."""
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def _block(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {**_norm(f"{name}.norm1", width), **_linear(f"{name}.attn.qkv", width, 3 * width),
            **_linear(f"{name}.attn.proj", width, width), **_norm(f"{name}.norm2", width),
            **_linear(f"{name}.mlp.fc1", width, 4 * width), **_linear(f"{name}.mlp.fc2", 4 * width, width)}


def _true_grid_positions(state: dict[str, torch.Tensor], net: OfficialVit, size: Size) -> torch.Tensor:
    """The table resized as the official code resizes it, on the true grid of the volume."""
    table = state["pos_embed"]
    image = table[:, 1:].transpose(1, 2).reshape(1, -1, *net.grid)
    grid = tuple(side // net.patch for side in size)
    resized = functional.interpolate(image, size=grid, mode="trilinear", align_corners=False)
    return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


@torch.no_grad()
def official_answers(official: Any, net: OfficialVit, size: Size, folder: Path) -> dict[str, dict[str, Any]]:
    """What the official class answers: CLS, patch tokens, and predictions where there is a decoder."""
    state = official_state(net)
    more = {"decoder_embed_dim": net.decoder, "decoder_depth": net.decoder_depth,
            "decoder_num_heads": net.decoder_heads} if net.decoder else {}
    network = official.VisionTransformer3D(
        img_size=size, patch_size=net.patch, in_chans=net.channels, embed_dim=net.width, depth=net.depth,
        num_heads=net.heads, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), encoder_only=not net.decoder,
        **more).eval()
    torch.save({"student": {f"module.backbone.{name}": tensor for name, tensor in state.items()}}, folder / "a.pth")
    network.load_pretrained_checkpoint(str(folder / "a.pth"))
    volume, answers = formula_volume(net.channels, size), {}
    if size != net.image and len(set(size)) > 1:  # the official code guesses the grid from the number of tokens
        answers["guessed patch_features"] = summary(network(volume, return_features=True)["patch_features"])
        network.pos_embed.copy_(_true_grid_positions(state, net, size))
    latent = network(volume, return_features=True)
    answers |= {name: summary(latent[name]) for name in ("cls_token", "patch_features")}
    if net.decoder:
        answers["prediction"] = summary(network.forward_decoder(latent["all_features"]))
        keep = formula_keep(latent["patch_features"].shape[1])
        seen = latent["patch_features"].gather(1, keep[..., None].expand(-1, -1, net.width))
        hidden = torch.tensor([place for place in range(latent["patch_features"].shape[1]) if place not in keep[0]])
        restore = torch.cat([keep[0], hidden]).argsort()[None]
        answers["masked prediction"] = summary(
            network.forward_decoder(torch.cat([latent["cls_token"][:, None], seen], dim=1), restore))
    return answers


def _main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description="Take the golden numbers from the official class.")
    parser.add_argument("--official", type=Path, required=True, help="a checkout of the official GL-MAE repository")
    file = parser.parse_args().official / "Finetune" / "models_3dvit.py"
    spec = importlib.util.spec_from_file_location("official_models_3dvit", file)
    official = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(official)
    answers = {}
    for name, (net, size) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            answers[name] = official_answers(official, net, size, Path(folder))
        print(name, file=sys.stderr)
    GOLDEN.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _main()
