"""Reading a model back: weights, and networks that are ready to use. Needs torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medmae.errors import BadInput
from medmae.models.info import ModelInfo
from medmae.models.model_files import WEIGHTS, ModelFiles
from medmae.models.registry import resolve_model
from medmae.networks.build import build_network


class FeatureMaps(nn.Module):
    """A pretraining network that answers with its encoder's feature maps; the whole network is in `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, *spatial) to the feature maps (B, C_map, *grid), coarsest last."""
        return self.network.features(images)  # type: ignore[operator]


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The weights of a model, verified, on the CPU; `path` as for `resolve_model`.

    Raises:
        BadInput: there is no model, or its weights are missing, damaged or edited.
    """
    files = ModelFiles(resolve_model(path))
    content = files.verified_weights(files.info())
    try:
        return load_file(content) if isinstance(content, Path) else load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInput(f"The {WEIGHTS} of {files.path} is not a safetensors file ({error}). "
                       "Copy or download the model again.") from None


def fitting_state(path: str | Path) -> dict[str, Tensor]:
    """`load_state`, after comparing it with the model's architecture.

    Raises:
        BadInput: as for `load_state`, or the weights do not fit.
    """
    info, state = ModelFiles(resolve_model(path)).info(), load_state(path)
    _refuse_unfitting(info, _empty_network(info.architecture), state)
    return state


def load_network(path: str | Path, *, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a model or run folder, in eval mode, taking normalised input.

    Segmentation maps (B, C, *spatial) to logits (B, K, *spatial), classification to (B, K), an encoder to its list of
    feature maps (B, C_map, *grid), coarsest last (`FeatureMaps`).

    Args:
        path: as for `resolve_model`.
        device: where the weights go.

    Raises:
        BadInput: there is no model, its weights are damaged, or they do not fit its architecture.
    """
    info, state = ModelFiles(resolve_model(path)).info(), load_state(path)
    network = _empty_network(info.architecture)
    _refuse_unfitting(info, network, state)
    if info.task == "encoder" and not hasattr(network, "features"):
        raise BadInput(f"The model {info.name} says that it is an encoder, but its architecture "
                       f"{info.architecture['name']} is none. Copy or download the model again.")
    # The file is mapped into memory and used in place: a copy would take as long again as verifying it. Windows lets
    # nobody replace a file that is mapped, so there it is copied.
    weights = {name: tensor.to(torch.float32, copy=os.name == "nt") for name, tensor in state.items()}
    network.load_state_dict(weights, assign=True)
    network = network.to(device)
    return (FeatureMaps(network) if info.task == "encoder" else network).eval()


class _NothingDrawn(TorchFunctionMode):
    """Leaves out normally distributed values: on the meta device they would import torch's compiler, for seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _empty_network(architecture: Mapping[str, Any]) -> nn.Module:
    """A network without memory for its weights: no time for initial values that are replaced at once."""
    with torch.device("meta"), _NothingDrawn():
        return build_network(architecture)


def _refuse_unfitting(info: ModelInfo, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    problem = _difference(network, {name: tuple(tensor.shape) for name, tensor in state.items()})
    if problem:
        raise BadInput(f"The weights of the model {info.name} do not fit its architecture: {problem}. "
                       "Copy or download the model again.")


def difference(architecture: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """How weights of these names and shapes differ from what an architecture needs; empty when they fit."""
    return _difference(_empty_network(architecture), shapes)


def _difference(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> str:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    problems = [f"{name} is missing" for name in wanted if name not in shapes]
    problems += [f"{name} is not part of it" for name in shapes if name not in wanted]
    problems += [f"{name} has the shape {shapes[name]} instead of {wanted[name]}"
                 for name in wanted if name in shapes and shapes[name] != wanted[name]]
    more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(problems[:4]) + more
