"""Whether a model is whole and works. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.models.info import ModelInfo
from medmae.models.loading import fitting_state, load_network, load_state
from medmae.models.model_files import ModelFiles
from medmae.models.registry import resolve_model

LARGEST_CHECKED = {2: 1024, 3: 192}  # side of the image of the forward pass, which shall take seconds


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its name, whether it is in order, and what was found."""

    name: str
    ok: bool
    found: str


def check_model(path: str | Path) -> list[Check]:
    """Look at a model's description, hash, architecture, values and answer; stops at what is not in order.

    Args:
        path: as for `resolve_model`.

    Raises:
        BadInput: there is no model.
    """
    folder = resolve_model(path)
    checks: list[Check] = []

    def passed(name: str, look: Callable[[], str]) -> bool:
        try:
            checks.append(Check(name, True, look()))
        except BadInput as error:
            checks.append(Check(name, False, str(error)))
        return checks[-1].ok

    if passed("description", lambda: _description(folder)) and passed("sha256", lambda: _hash(folder)) and passed(
            "architecture", lambda: _fit(folder)) and passed("values", lambda: _finite(folder)):
        passed("forward", lambda: _forward(folder))
    return checks


def _description(folder: Path) -> str:
    info = ModelFiles(folder).info()
    Preprocessing.of(info)
    return f"{info.task}, {info.method} {info.preset}, {len(info.labels)} labels, made by MedMAE {info.medmae}"


def _hash(folder: Path) -> str:
    info = ModelFiles(folder).info()
    ModelFiles(folder).verified_weights(info)
    return info.weights_sha256


def _fit(folder: Path) -> str:
    info, state = ModelFiles(folder).info(), fitting_state(folder)
    return f"{info.architecture['name']}, {len(state)} tensors, {sum(map(torch.numel, state.values())):,} values"


def _finite(folder: Path) -> str:
    for name, tensor in load_state(folder).items():
        if not torch.isfinite(tensor.to(torch.float32)).all():
            raise BadInput(f"{name} holds values that are not finite numbers: the training diverged or the file was "
                           "edited. Train or import the model again.")
    return "all finite"


@torch.no_grad()
def _forward(folder: Path) -> str:
    info = ModelFiles(folder).info()
    network = load_network(folder)
    size = tuple(min(side, LARGEST_CHECKED[info.spatial_dims]) for side in info.input_size)
    shape = (1, len(info.channels), *size)
    try:
        answer = network(torch.linspace(0, 1, torch.Size(shape).numel()).reshape(shape))
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"The network cannot work on an image of {size}: {error}. Train or import the model "
                       "again.") from None
    return _described(answer, info, size)


def _described(answer: Tensor | list[Tensor], info: ModelInfo, size: tuple[int, ...]) -> str:
    last = answer[-1] if isinstance(answer, list) else answer
    expected = {"segmentation": (1, len(info.labels), *size), "classification": (1, len(info.labels))}.get(info.task)
    if expected is not None and tuple(last.shape) != expected:
        raise BadInput(f"The network answers with the shape {tuple(last.shape)} instead of {expected}. "
                       "Train or import the model again.")
    if not torch.isfinite(last).all():
        raise BadInput("The network answers with values that are not finite numbers. Train or import the model again.")
    return f"{' x '.join(map(str, (1, len(info.channels), *size)))} to {' x '.join(map(str, last.shape))}"
