"""What every pretraining method offers to the run around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import nn

from medmae.datasets import Corpus
from medmae.inference.config import Precision
from medmae.networks.presets import preset_size
from medmae.training.parameters import parameter_groups
from medmae.training.randomness import Draw, DrawOrder
from medmae.training.task import Batch


@dataclass(frozen=True)
class Defaults:
    """Schedule of a preset: steps, batch over all processes, peak rate, arithmetic, warm-up as a share of the steps."""

    steps: int
    batch_size: int
    learning_rate: float
    precision: Precision = "fp32"
    warmup: float = 0.1


@dataclass(frozen=True)
class Reconstructions:
    """Examples for a person to look at: images (N, C, *spatial), what was hidden (N, *spatial), what came back."""

    images: np.ndarray
    masked: np.ndarray
    reconstructions: np.ndarray


class PretrainingMethod(ABC):
    """A method: its settings, its views and masks, its losses. Subclasses are registered in registry.py.

    Attributes:
        module: the network that is trained, with everything that belongs to its state (e.g. a teacher); its forward
            takes a batch and returns scalar losses, the minimised one under "loss".
        network: the part of it that is kept as the model: encoder, decoder and mask token.
        architecture: the description from which `medmae.networks.build_network` builds `network`.
    """

    Settings: ClassVar[type]
    spatial_dims: ClassVar[int]
    module: nn.Module
    network: nn.Module
    architecture: dict[str, Any]
    order: DrawOrder | None = None  # instead of the plain one, e.g. a balanced one

    def __init__(self, preset: str, channels: int, corpus: Corpus, settings: Any, seed: int,
                 weight_decay: float) -> None:
        self.preset = preset
        self.channels = channels
        self.corpus = corpus
        self.settings = settings
        self.seed = seed
        self.weight_decay = weight_decay

    @classmethod
    @abstractmethod
    def defaults(cls, preset: str) -> Defaults:
        """The schedule of a preset."""

    @classmethod
    @abstractmethod
    def settings_for(cls, preset: str) -> Any:
        """The method's own settings for a preset."""

    @classmethod
    def check_settings(cls, preset: str, settings: Any) -> None:
        """Refuse settings that do not fit the preset, before any work is done.

        Raises:
            BadInput: they do not, or there is no such preset.
        """
        return

    @property
    @abstractmethod
    def number_of_items(self) -> int:
        """How many different items the data has; one draw is one item."""

    @abstractmethod
    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """Views and masks of `draws`, as functions of (seed, epoch, item id) alone."""

    @abstractmethod
    def reconstruct_items(self, items: Sequence[int]) -> Reconstructions:
        """Reconstruct the images of `items` with fixed masks, with the network as it is now."""

    def reconstruct(self, count: int) -> Reconstructions:
        """Reconstruct `count` images that are spread over the corpus."""
        return self.reconstruct_items(np.linspace(0, self.number_of_items - 1, count).round().astype(int).tolist())

    @property
    def shown_item(self) -> tuple[int, int]:
        """An item to watch while the network trains, and the number of its image in the corpus: one in the middle."""
        return self.number_of_items // 2, self.number_of_items // 2

    def after_step(self, step: int, total: int) -> None:
        """Nothing to do after a step, unless the method has a teacher."""
        return

    def watch(self, record: Mapping[str, Any]) -> None:
        """Follow the progress records of training, on the main process and about once a second; nothing by default."""
        return

    def training_summary(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the model shall say about its training beyond counts and settings, from all progress records."""
        return {}

    @property
    def network_spacing_mm(self) -> tuple[float, float, float] | None:
        """The voxel size (k, j, i) of what the network saw, where it is not the corpus's."""
        return None

    def parameter_groups(self) -> list[dict[str, object]]:
        """All trainable parameters, with weight decay on matrices only."""
        return parameter_groups(self.module, self.weight_decay)

    def validate(self, step: int) -> Mapping[str, Any]:
        """Pretraining has nothing to validate against."""
        return {}


def preset_value(table: Mapping[str, Any], preset: str) -> Any:
    """The entry of a preset, or of its size where it has none of its own ("base" for "base-fast")."""
    return table[preset if preset in table else preset_size(preset)]
