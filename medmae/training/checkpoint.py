"""Checkpoints: everything that a run needs to go on exactly, in one safetensors file, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from medmae.errors import BadInput
from medmae.files import atomic_path

KEEP = 2


def save_checkpoint(folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer,
                    extra: dict[str, Any]) -> Path:
    """Write ``folder/step-NNNNNNNN.safetensors``: the state after `step` steps. Older ones but `KEEP` are removed.

    Random state is not stored, because nothing in a run depends on it (see randomness.py).
    """
    tensors = {f"module/{name}": tensor.detach().cpu().contiguous().clone()
               for name, tensor in module.state_dict().items()}
    scalars: dict[str, dict[str, float]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{key}"] = value.detach().cpu().contiguous().clone()
            else:
                scalars.setdefault(str(index), {})[key] = value
    metadata = {"step": str(step), "scalars": json.dumps(scalars), "extra": json.dumps(extra)}
    path = folder / f"step-{step:08d}.safetensors"
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def load_checkpoint(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, dict[str, Any]]:
    """Restore module and optimiser; returns the number of steps done and what was stored as `extra`.

    Raises:
        BadInput: the file is empty, truncated or of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        step = int(metadata["step"])
        scalars = json.loads(metadata["scalars"])
        extra = json.loads(metadata["extra"])
        module.load_state_dict({name.removeprefix("module/"): tensor for name, tensor in tensors.items()
                                if name.startswith("module/")})
    except (SafetensorError, KeyError, ValueError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"The checkpoint {path} cannot be read ({reason}). It is damaged or belongs to another network. "
                       "Delete it to go on from the one before, or start a new run.") from None
    states: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in scalars.items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/", 2)
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return step, extra
