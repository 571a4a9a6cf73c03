"""Few-label finetuning for classification: whole images, varied a little, cross-entropy weighted by class frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.datasets.slices import slice_stack, slice_stacks
from medmae.finetuning.augmentation import random_matrix, vary_intensity
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.segmentation import whole_slice_centre
from medmae.finetuning.task import FinetuningTask
from medmae.metrics import auc
from medmae.training.randomness import Draw, random_generator
from medmae.training.task import Batch
from medmae.training.views import cut_view


class WeightedCrossEntropy:
    """Cross-entropy in fp32; a class counts inversely to its frequency, so that rare classes are not ignored."""

    def __init__(self, targets: Sequence[int], classes: int) -> None:
        counts = np.maximum(np.bincount(targets, minlength=classes), 1)
        self._weights = torch.tensor(counts.sum() / (classes * counts), dtype=torch.float32)

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """logits (B, K), targets (B,) class indices."""
        with torch.autocast(logits.device.type, enabled=False):
            loss = nn.functional.cross_entropy(logits.float(), targets, self._weights.to(logits.device))
        return {"loss": loss}


class ClassificationTask(FinetuningTask):
    """A view is the whole image (or a random slice of a volume for 2-D networks) on the network's input size."""

    def __init__(self, network: nn.Module, config: FinetuneConfig, corpus: Corpus, validation: Corpus | None,
                 input_size: tuple[int, ...], labels: Sequence[str]) -> None:
        targets = [_target(corpus, index) for index in range(len(corpus))]
        super().__init__(network, WeightedCrossEntropy(targets, len(labels)), config, corpus, validation, input_size)
        self.labels = list(labels)
        self._targets = targets

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B, C, *size) float32, targets (B,) int64."""
        return {"images": torch.stack([self._view(draw) for draw in draws]),
                "targets": torch.tensor([self._targets[draw.item] for draw in draws])}

    def _view(self, draw: Draw) -> torch.Tensor:
        generator = random_generator(self.config.seed, draw.epoch, self.corpus.items[draw.item].id)
        image = self.corpus.image(draw.item)
        matrix = random_matrix(self.config.augmentation, len(self.size), generator)
        if len(self.size) == 2:
            image = slice_stack(image, int(generator.integers(image.shape[1])), self.config.context or 0)
            centre = whole_slice_centre(image, generator)
        else:
            centre = (np.array(image.shape[1:]) - 1) / 2 + generator.uniform(-0.05, 0.05, 3) * np.array(self.size)
        return vary_intensity(cut_view(image, centre, matrix, self.size), self.config.augmentation, generator)

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, Any]:
        """AUC of the validation cases (their number is not limited: one forward each)."""
        if self.validation is None:
            return {}
        network = self.module.average.eval()
        device = next(network.parameters()).device
        targets, scores = [], []
        for index in range(len(self.validation)):
            image = self.validation.image(index)
            slices = (slice_stacks(image, range(image.shape[1]), self.config.context or 0) if len(self.size) == 2
                      else [image])
            views = torch.stack([_whole(one, self.size) for one in slices]).to(device)
            scores.append(network(views).float().mean(0).softmax(0).cpu().numpy())
            targets.append(_target(self.validation, index))
        area = auc(np.array(targets), np.stack(scores))
        self.last_validation = {"task": "classification", "auc": area}
        return {"validation_auc": area} if area is not None else {}


def _whole(image: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """The middle of an image on the input size, unvaried."""
    return cut_view(image, (np.array(image.shape[1:]) - 1) / 2, np.eye(len(size)), size)


def _target(corpus: Corpus, index: int) -> int:
    target = corpus.items[index].target
    assert isinstance(target, int)  # the run refuses multi-label data before it begins
    return target
