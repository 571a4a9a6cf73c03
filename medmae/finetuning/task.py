"""What finetuning for segmentation and for classification have in common: network, averaged weights, groups, data."""

from __future__ import annotations

import copy
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.early_stopping import BestWeights
from medmae.training.parameters import parameter_groups
from medmae.training.randomness import Draw
from medmae.training.task import Batch

log = logging.getLogger(__name__)
WORST_CASES = 30  # of a validation that progress tells of
Loss = Callable[[Any, torch.Tensor], dict[str, torch.Tensor]]  # of logits, or of those of several levels


class AveragedNetwork(nn.Module):
    """The network that is trained and the exponential average of its weights, which becomes the model.

    With `patience` the best average so far is kept as well. With `deep_supervision` the loss gets the logits of several
    levels (`deep_logits` of the network).
    """

    def __init__(self, network: nn.Module, loss: Loss, *, patience: int | None = None,
                 deep_supervision: bool = False) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.best = None if patience is None else BestWeights(self.average, patience)
        self._loss = loss
        self._is_deep = deep_supervision

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses of the trained network on a batch of images and targets."""
        network: Any = self.network
        answer = network.deep_logits(batch["images"]) if self._is_deep else network(batch["images"])
        return self._loss(answer, batch["targets"])

    @property
    def chosen(self) -> nn.Module:
        """What becomes the model: the best average where there is one, otherwise the last."""
        return self.best.network if self.best is not None and self.best.is_known else self.average

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """average = decay x average + (1 - decay) x network, buffers copied."""
        for average, current in zip(self.average.parameters(), self.network.parameters(), strict=True):
            if current.requires_grad:  # frozen ones are equal, and stay it to the last bit
                average.mul_(decay).add_(current.detach(), alpha=1 - decay)
        for buffer, source in zip(self.average.buffers(), self.network.buffers(), strict=True):
            buffer.copy_(source)


class FinetuningTask(ABC):
    """A `TrainingTask`: one item is one labelled case.

    `corpus` holds the training cases, `validation` (or None) the cases scored for the report and for early stopping.

    Attributes:
        case_scores: what the last validation found, by the id of the case; the higher, the better.
    """

    figure: ClassVar[str]  # what a validation is judged by
    case_figure: ClassVar[str]  # what a case is judged by

    def __init__(self, network: nn.Module, loss: Loss, config: FinetuneConfig, corpus: Corpus,
                 validation: Corpus | None, input_size: tuple[int, ...]) -> None:
        if config.freeze_encoder:
            network.encoder.requires_grad_(False)  # type: ignore[union-attr]
        self.module = AveragedNetwork(network, loss, patience=config.patience,
                                      deep_supervision=config.deep_supervision > 0)
        self.config = config
        self.corpus = corpus
        self.validation = validation
        self.size = input_size
        self.number_of_items = len(corpus)
        self.last_validation: dict[str, Any] = {}
        self.case_scores: dict[str, float] = {}

    @abstractmethod
    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B, C, *size) and targets of `draws`."""

    @abstractmethod
    def score(self, network: nn.Module) -> float | None:
        """The score of a network on the validation cases, which `case_scores` and, of a segmentation,
        `last_validation` then tell in full."""

    def validate(self, step: int) -> Mapping[str, Any]:
        """Score the averaged weights on the validation cases, for the log and for early stopping."""
        if self.validation is None:
            return {}
        begun = time.monotonic()
        score = self.score(self.module.average.eval())
        if self.module.best is not None:
            self.module.best.note(step, score, self.module.average)
        log.info("validation at step %d: %s %s (%.1f s)", step, self.figure,
                 "does not exist" if score is None else f"{score:.4f}", time.monotonic() - begun)
        figures = {} if score is None else {f"validation_{self.figure}": score}
        return figures | ({"validation_cases": self._worst_cases()} if self.case_scores else {})

    def _worst_cases(self) -> list[dict[str, Any]]:
        worst = sorted(self.case_scores.items(), key=lambda scored: scored[1])[:WORST_CASES]
        return [{"case": case, self.case_figure: round(score, 4)} for case, score in worst]

    def should_stop(self) -> bool:
        """Whether validations have not become better for so long that training ends before its last step."""
        return self.module.best is not None and self.module.best.is_exhausted

    def finish(self) -> None:
        """What is left to do with the finished weights: they are scored, unless the last validation was of them."""
        if self.validation is not None and (self.module.best is not None or not self.last_validation):
            self.score(self.module.chosen.eval())
        self._tell_selection()

    def _tell_selection(self) -> None:
        best = self.module.best
        if best is not None and best.is_known:
            self.last_validation["selected_on"] = "validation"

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
    patches between two stages belongs to the block before it. The last norm lies at 0. All that comes before the blocks
    (patches, CLS, a convolutional stem) lies below all of them. A network without an encoder of ours (the plain U-Net)
    has no levels.
    """
    encoder: Any = getattr(network, "encoder", None)
    if hasattr(encoder, "blocks"):
        first, levels = [], len(encoder.blocks)
        pattern = re.compile(r"(?:^|\.)encoder\.(?:blocks\.(?P<block>\d+)\.|(?P<norm>norm\.)|)")
    elif hasattr(encoder, "stages"):
        depths = [len(stage.blocks) for stage in encoder.stages]
        first, levels = [sum(depths[:number]) for number in range(len(depths) + 1)], sum(depths)
        pattern = re.compile(r"(?:^|\.)encoder\.(?:stages\.(?P<stage>\d+)\.(?:blocks\.(?P<block>\d+)\.)?"
                             r"|(?P<norm>norm\.)|)")
    else:
        return lambda name: None

    def depth(name: str) -> int | None:
        match = pattern.search(name)
        if match is None:
            return None
        place = match.groupdict()
        if place["norm"] is not None:
            return 0
        if place.get("stage") is not None:
            stage = int(place["stage"])
            last = first[stage + 1] - 1 if place["block"] is None else first[stage] + int(place["block"])
            return levels - last
        return levels + 1 if place["block"] is None else levels - int(place["block"])

    return depth
