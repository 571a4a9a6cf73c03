"""Parameter groups of the optimiser: weight decay where it belongs, and a learning rate that falls with depth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    depth_of: Callable[[str], int | None] | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, object]]:
    """Groups for AdamW with the keys params, weight_decay and rate_scale.

    Vectors (biases, norms, tokens' scales) are not decayed. With `depth_of`, a parameter d levels below the head learns
    at ``layer_decay ** d`` of the rate (layer-wise decay as in masked-autoencoder finetuning); None means the head.
    """
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        undecayed = parameter.ndim <= 1 or name.endswith(("relative_position_bias_table", "_token"))
        decay = 0.0 if undecayed else weight_decay
        depth = depth_of(name) if depth_of else None
        scale = 1.0 if depth is None else layer_decay ** depth
        groups.setdefault((decay, scale), []).append(parameter)
    return [{"params": parameters, "weight_decay": decay, "rate_scale": scale}
            for (decay, scale), parameters in sorted(groups.items())]
