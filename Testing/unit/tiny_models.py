"""Encoders on disk that train in milliseconds, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from medmae.models import ModelInfo, save_model
from medmae.networks import architecture_for, build_network

SIZES: dict[str, dict[str, Any]] = {
    "gl-mae": {"patch": 8, "width": 24, "depth": 3, "heads": 2, "decoder_width": 12, "decoder_depth": 1,
               "decoder_heads": 2},
    "vis-mae": {"width": 12, "depths": [1, 1], "heads": [1, 2], "window": 4},
}


def tiny_encoder(folder: Path, method: str, *, channels: int = 1, side: int | None = None, **arguments: Any) -> Path:
    """A model folder of a pretraining network of `method`; `side` is its window's, `arguments` are its sizes."""
    torch.manual_seed(1)
    architecture = architecture_for(method, "tiny", "encoder", channels)
    architecture["arguments"] |= SIZES[method] | arguments
    dims, modality = (3, "MR") if method == "gl-mae" else (2, "DX")
    info = ModelInfo(
        name="tiny", task="encoder", method=method, preset="tiny", architecture=architecture,
        spatial_dims=dims,  # type: ignore[arg-type]
        channels=[{"name": modality, "modality": modality}] * channels, modality=modality,
        orientation="RAS" if dims == 3 else "LPS", input_size=[side or (24 if dims == 3 else 32)] * dims,
        intensity={"kind": "robust"})
    return save_model(folder, info, build_network(architecture))
