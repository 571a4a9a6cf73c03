"""What finetuning for segmentation and for classification have in common: network, averaged weights, groups, data."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.finetuning.config import FinetuneConfig
from medmae.training.parameters import parameter_groups
from medmae.training.randomness import Draw
from medmae.training.task import Batch

Loss = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]


class AveragedNetwork(nn.Module):
    """The network that is trained and the exponential average of its weights, which becomes the model."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self._loss = loss

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses of the trained network on a batch of images and targets."""
        return self._loss(self.network(batch["images"]), batch["targets"])

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """average = decay x average + (1 - decay) x network, buffers copied."""
        for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.mul_(decay).add_(current.detach(), alpha=1 - decay)
        for buffer, source in zip(self.average.buffers(), self.network.buffers(), strict=True):
            buffer.copy_(source)


class FinetuningTask(ABC):
    """A `TrainingTask`: one item is one labelled case.

    `corpus` holds the training cases, `validation` (or None) the cases scored for the report.
    """

    def __init__(self, network: nn.Module, loss: Loss, config: FinetuneConfig, corpus: Corpus,
                 validation: Corpus | None, input_size: tuple[int, ...]) -> None:
        self.module = AveragedNetwork(network, loss)
        self.config = config
        self.corpus = corpus
        self.validation = validation
        self.size = input_size
        self.number_of_items = len(corpus)
        self.last_validation: dict[str, Any] = {}

    @abstractmethod
    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B, C, *size) and targets of `draws`."""

    @abstractmethod
    def validate(self, step: int) -> Mapping[str, Any]:
        """Scores of the validation corpus with the averaged weights."""

    def finish(self, steps: int) -> None:
        """What is left to do with the finished weights: validation cases that were never scored are scored now."""
        if not self.last_validation:
            self.validate(steps)

    def parameter_groups(self) -> list[dict[str, object]]:
        """All trainable parameters; the encoder's learn more slowly the deeper they lie (layer-wise decay)."""
        # filled in by resolve_finetune_config
        assert self.config.layer_decay is not None and self.config.weight_decay is not None
        depth_of = encoder_depths(self.module.network)
        return parameter_groups(self.module, self.config.weight_decay, depth_of, self.config.layer_decay)

    def after_step(self, step: int, total: int) -> None:
        """Move the average; it follows quickly at first, so that it never remembers the random start."""
        self.module.follow(min(self.config.ema, (1 + step) / (10 + step)))


def encoder_depths(network: nn.Module) -> Callable[[str], int | None]:
    """For a parameter's name, how many levels below the head it lies; None outside the encoder.

    Levels are blocks, 1 the last, also those of a Swin transformer, however they are grouped into stages; what merges
    patches between two stages belongs to the block before it. The stem lies below all. A network without an encoder of
    ours (the plain U-Net) has no levels.
    """
    encoder: Any = getattr(network, "encoder", None)
    if encoder is None:
        return lambda name: None
    if hasattr(encoder, "blocks"):
        first, levels = [], len(encoder.blocks)
        pattern = re.compile(r"(?:^|\.)encoder\.(?:blocks\.(?P<block>\d+)\.|(?P<other>patch_embed|norm|cls_token))")
    else:
        depths = [len(stage.blocks) for stage in encoder.stages]
        first, levels = [sum(depths[:number]) for number in range(len(depths) + 1)], sum(depths)
        pattern = re.compile(r"(?:^|\.)encoder\.(?:stages\.(?P<stage>\d+)\.(?:blocks\.(?P<block>\d+)\.)?"
                             r"|(?P<other>patch_embed|norm))")

    def depth(name: str) -> int | None:
        match = pattern.search(name)
        if match is None:
            return None
        if match["other"] is not None:
            return 0 if match["other"] == "norm" else levels + 1
        if not first:
            return levels - int(match["block"])
        stage = int(match["stage"])
        block = first[stage + 1] - 1 if match["block"] is None else first[stage] + int(match["block"])
        return levels - block

    return depth
