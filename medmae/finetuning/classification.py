"""Few-label finetuning for classification: whole images, varied a little, with one class each or several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.datasets.slices import slice_stack
from medmae.errors import BadInput
from medmae.finetuning.augmentation import random_matrix, vary_intensity
from medmae.finetuning.classification_loss import ClassificationLoss
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.segmentation import whole_slice_centre
from medmae.finetuning.task import FinetuningTask
from medmae.inference.classifier import view_logits
from medmae.inference.device import windows_at_once
from medmae.inference.pooling import pool_slices
from medmae.metrics import (
    Calibration,
    ClassificationCase,
    auc,
    classification_scores,
    fit_temperature,
    probabilities_of,
    targets_of,
)
from medmae.training.randomness import Draw, random_generator
from medmae.training.task import Batch
from medmae.training.views import cut_view

SLICES_OF_A_BAG = 8


class ClassificationTask(FinetuningTask):
    """A view is the whole image on the network's input size; for 2-D networks one slice of a volume, or several.

    With "mean" pooling one random slice of each volume is drawn: cross-entropy is convex in the logits, so that the
    expected loss of a slice bounds the loss of the pooled logits from above. Other poolings need the slices of a volume
    together: `slices` (8) evenly spread ones are drawn and their logits pooled before the loss.
    """

    figure = "auc"
    case_figure = "probability"  # of what is right; of several classes that may apply the mean

    def __init__(self, network: nn.Module, config: FinetuneConfig, corpus: Corpus, validation: Corpus | None,
                 input_size: tuple[int, ...], labels: Sequence[str]) -> None:
        self.least_batch = getattr(network, "least_batch", 1)
        if (config.batch_size or self.least_batch) < self.least_batch:
            raise BadInput(f"batch_size={config.batch_size} leaves nothing to standardise the head's values by. Use at "
                           f"least {self.least_batch}, or standardise=false with pool=mean or pool=cls.")
        self._targets = torch.from_numpy(_targets(corpus, len(labels)))
        self.multi_label = self._targets.ndim == 2
        loss = ClassificationLoss(self._targets, len(labels), config.slice_pooling, config.class_balance == "loss")
        super().__init__(network, loss, config, corpus, validation, input_size)
        self.labels = list(labels)
        self.calibration = Calibration(1.0, 0, note="there were no validation cases")
        self._slices = self._slices_of_a_view()
        self._groups = _groups(self._targets, len(labels)) if config.class_balance == "draw" else []

    def _slices_of_a_view(self) -> int:
        if len(self.size) == 3 or all(item.shape[1] == 1 for item in self.corpus.items):
            return 1
        return self.config.slices or (1 if self.config.slice_pooling == "mean" else SLICES_OF_A_BAG)

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B * S, C, *size) float32 of S slices a case, targets (B,) int64 or (B, K) of 0 and 1."""
        items = [self._item(draw) for draw in draws]
        views = [view for draw, item in zip(draws, items, strict=True) for view in self._views(draw, item)]
        return {"images": torch.stack(views), "targets": self._targets[items]}

    def _item(self, draw: Draw) -> int:
        """The item itself, or one of a class drawn evenly."""
        if not self._groups:
            return draw.item
        generator = random_generator(self.config.seed, "class", draw.epoch, self.corpus.items[draw.item].id)
        group = self._groups[int(generator.integers(len(self._groups)))]
        return int(group[int(generator.integers(len(group)))])

    def _views(self, draw: Draw, item: int) -> list[torch.Tensor]:
        generator = random_generator(self.config.seed, draw.epoch, self.corpus.items[draw.item].id)
        image = self.corpus.image(item)
        if len(self.size) == 3:
            centre = (np.array(image.shape[1:]) - 1) / 2 + generator.uniform(-0.02, 0.02, 3) * np.array(self.size)
            return [self._view(image, centre, generator)]
        spread = (np.arange(self._slices) + generator.random(self._slices)) / self._slices
        views = []
        for number in (spread * image.shape[1]).astype(int):
            stack = slice_stack(image, int(number), self.config.context or 0)
            views.append(self._view(stack, whole_slice_centre(stack, generator), generator))
        return views

    def _view(self, image: np.ndarray, centre: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
        matrix = random_matrix(self.config.augmentation, len(self.size), generator)
        return vary_intensity(cut_view(image, centre, matrix, self.size), self.config.augmentation, generator)

    def score(self, network: nn.Module) -> float | None:
        """AUC of the validation cases (their number is not limited: one forward pass each)."""
        assert self.validation is not None
        targets = _targets(self.validation, len(self.labels))
        probabilities = self._probabilities(self._validation_logits(network))
        right = (np.where(targets, probabilities, 1 - probabilities).mean(1) if targets.ndim == 2
                 else probabilities[np.arange(len(targets)), targets])
        self.case_scores = {item.id: float(one) for item, one in zip(self.validation.items, right, strict=True)}
        return auc(targets, probabilities)

    def finish(self) -> None:
        """Fit the temperature on the validation cases and score them: probabilities as the model will give them."""
        if self.validation is None:
            return
        logits = self._validation_logits(self.module.chosen.eval())
        targets = _targets(self.validation, len(self.labels))
        if self.config.calibrate:
            self.calibration = fit_temperature(targets, logits)
        else:
            self.calibration = Calibration(1.0, 0, note="calibration was switched off")
        calibrated, raw = self._probabilities(logits, self.calibration.temperature), self._probabilities(logits)
        self.last_validation = classification_scores([
            ClassificationCase(item.id, item.subject or item.id, _case_target(item.target), tuple(calibrated[number]),
                               tuple(raw[number]) if self.calibration.cases else None)
            for number, item in enumerate(self.validation.items)], self.labels)
        self._tell_selection()

    def _probabilities(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        return probabilities_of(logits, temperature, multi_label=self.multi_label)

    def _validation_logits(self, network: nn.Module) -> np.ndarray:
        """Pooled logits (cases, K) of `network`, of the views that the finished model will see."""
        assert self.validation is not None
        device = next(network.parameters()).device
        return np.stack([pool_slices(view_logits(
            network, self.validation.image(index), self.size, device=device, context=self.config.context or 0,
            batch=windows_at_once(device, self.size)), self.config.slice_pooling).numpy()
            for index in range(len(self.validation))])


def _targets(corpus: Corpus, classes: int) -> np.ndarray:
    """Class indices (N,), or 0 and 1 of shape (N, classes) where several may apply."""
    return targets_of([_case_target(item.target) for item in corpus.items], classes)


def _case_target(target: int | list[int] | None) -> int | tuple[int, ...]:
    assert target is not None  # the run takes labelled cases only
    return tuple(target) if isinstance(target, list) else target


def _groups(targets: torch.Tensor, classes: int) -> list[np.ndarray]:
    """The items of each class, and those of none, without empty groups."""
    has = targets.bool() if targets.ndim == 2 else targets[:, None] == torch.arange(classes)
    columns = [*has.T, ~has.any(1)]
    return [np.flatnonzero(column.numpy()) for column in columns if bool(column.any())]
