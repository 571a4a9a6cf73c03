"""A model ready to run: its description, its network on a device, and the preprocessing it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.inference.device import Precision, resolve_device, windows_at_once
from medmae.models import ModelInfo, load_info, load_network, resolve_model


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode with everything needed to run it on images."""

    info: ModelInfo
    network: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    precision: Precision = "auto"

    @classmethod
    def load(cls, model: str | Path, *, task: str, device: str = "auto", precision: Precision = "auto") -> LoadedModel:
        """Load a model by name or path.

        Raises:
            BadInput: there is no such model, it is damaged, made for another task, or the device does not exist.
        """
        where = resolve_device(device)
        folder = resolve_model(model)
        info = load_info(folder)
        require_task(info, task)
        return cls.of(info, load_network(folder, device=str(where)), device=where, precision=precision)

    @classmethod
    def of(cls, info: ModelInfo, network: nn.Module, *, device: torch.device | None = None,
           precision: Precision = "auto") -> LoadedModel:
        """Wrap a network that is in memory already, for example between two training steps; it is set to eval mode."""
        where = device or next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        return cls(info, network.eval(), Preprocessing.of(info), where, precision)

    @property
    def windows_at_once(self) -> int:
        """A number of windows a forward pass that suits the device."""
        return windows_at_once(self.device, self.window)

    @property
    def window(self) -> Sequence[int]:
        """The network's input size, (k, j, i) or (rows, columns)."""
        return self.preprocessing.input_size


def load_members(model: str | Path | LoadedModel | Sequence[str | Path | LoadedModel], *, task: str,
                 device: str = "auto", precision: Precision = "auto") -> list[LoadedModel]:
    """One model, or several that answer together.

    Raises:
        BadInput: one cannot be used, or they do not prepare images alike or have other labels than the first.
    """
    named = [model] if isinstance(model, (str, Path, LoadedModel)) else list(model)
    if not named:
        raise BadInput("No model is named. Name one, or several that answer together.")
    members = [one if isinstance(one, LoadedModel) else LoadedModel.load(one, task=task, device=device,
                                                                         precision=precision) for one in named]
    first = members[0]
    for member in members:
        require_task(member.info, task)
        if member.preprocessing != first.preprocessing:
            raise BadInput(f"The models {first.info.name} and {member.info.name} prepare images differently (spacing, "
                           "orientation, intensities, channels or window), so they cannot answer together. "
                           "Use models of one training.")
        if _labels_of(member.info) != _labels_of(first.info):
            raise BadInput(f"The models {first.info.name} and {member.info.name} have different labels, so they cannot "
                           "answer together. Use models of one dataset.")
    return members


def _labels_of(info: ModelInfo) -> list[tuple[str, int]]:
    return [(str(label["name"]), int(label["value"])) for label in info.labels]


def require_task(info: ModelInfo, task: str) -> None:
    """Refuse a model that was made for another task.

    Raises:
        BadInput: it was.
    """
    if info.task == task:
        return
    if info.task == "encoder":
        remedy = f"Finetune it on a few labelled cases (medmae finetune --encoder) and use that model for {task}."
    else:
        command = {"segmentation": "segment", "classification": "classify"}[info.task]
        remedy = f"Use it with medmae {command}, or choose a {task} model."
    raise BadInput(f"The model {info.name} is {_article(info.task)} {info.task}"
                   f"{'' if info.task == 'encoder' else ' model'}, but {task} is asked for. {remedy}")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
