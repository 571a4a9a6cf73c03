"""Few-label finetuning for segmentation: foreground-balanced views, Dice + cross-entropy, Dice per validation case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.datasets.slices import slice_stack
from medmae.finetuning.augmentation import random_matrix, vary_intensity
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.task import FinetuningTask
from medmae.inference.config import SegmentConfig
from medmae.inference.device import windows_at_once
from medmae.inference.slices import slice_logits
from medmae.inference.sliding_window import sliding_window
from medmae.metrics import dice_per_label
from medmae.training.randomness import Draw, random_generator
from medmae.training.task import Batch
from medmae.training.views import cut_view, random_centre

OVERLAP = SegmentConfig().overlap


class DiceCrossEntropy:
    """Soft Dice (squared denominators, pooled over the batch, background included) plus cross-entropy, in fp32.

    Pooling over the batch keeps a class that is absent from one crop from counting as missed there. fp32, because in
    half precision the sum of squares overflows (docs/methods.md).
    """

    def __init__(self, dice_weight: float, ce_weight: float) -> None:
        from monai.losses import DiceLoss

        self._dice = DiceLoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True, smooth_nr=1e-5,
                              smooth_dr=1e-5)
        self._weights = (dice_weight, ce_weight)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """logits (B, K, *size), labels (B, *size) class indices."""
        with torch.autocast(logits.device.type, enabled=False):
            dice = self._dice(logits.float(), labels[:, None])
            cross_entropy = nn.functional.cross_entropy(logits.float(), labels)
            loss = self._weights[0] * dice + self._weights[1] * cross_entropy
        return {"loss": loss, "dice_loss": dice, "cross_entropy": cross_entropy}


class DeepSupervision:
    """`DiceCrossEntropy` of the logits of several levels, each coarser one at half the weight; the weights add up to 1.

    Labels are brought to a level's grid by their nearest voxel. The parts logged are those of the finest level.
    """

    def __init__(self, loss: DiceCrossEntropy) -> None:
        self._loss = loss

    def __call__(self, levels: Sequence[torch.Tensor], labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """levels (B, K, *size of the level), finest first; labels (B, *size) class indices."""
        parts = [self._loss(logits, _resized_labels(labels, logits.shape[2:])) for logits in levels]
        weights = [0.5**level for level in range(len(levels))]
        weighted = [weight * part["loss"] for weight, part in zip(weights, parts, strict=True)]
        return {**parts[0], "loss": torch.stack(weighted).sum() / sum(weights)}


def _resized_labels(labels: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if labels.shape[1:] == torch.Size(size):
        return labels
    return nn.functional.interpolate(labels[:, None].float(), tuple(size), mode="nearest-exact")[:, 0].long()


class SegmentationTask(FinetuningTask):
    """Views are crops of volumes (3-D) or slices with their neighbours (2-D), varied in geometry and intensity."""

    figure = "dice"
    case_figure = "dice"

    def __init__(self, network: nn.Module, config: FinetuneConfig, corpus: Corpus, validation: Corpus | None,
                 input_size: tuple[int, ...], labels: Sequence[str]) -> None:
        loss = DiceCrossEntropy(config.dice_weight, config.ce_weight)
        super().__init__(network, DeepSupervision(loss) if config.deep_supervision else loss, config, corpus,
                         validation, input_size)
        self.labels = list(labels)
        self._places = [_places(corpus.label(index)) for index in range(len(corpus))]

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B, C, *size) float32, targets (B, *size) int64."""
        views = [self._view(draw) for draw in draws]
        return {"images": torch.stack([image for image, _ in views]),
                "targets": torch.stack([label for _, label in views])}

    def _view(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        generator = random_generator(self.config.seed, draw.epoch, self.corpus.items[draw.item].id)
        image, label = self.corpus.image(draw.item), self.corpus.label(draw.item)[None]
        place = self._foreground_place(draw.item, generator)
        matrix = random_matrix(self.config.augmentation, len(self.size), generator)
        if len(self.size) == 2:
            number = int(place[0]) if place is not None else int(generator.integers(image.shape[1]))
            image, label = slice_stack(image, number, self.config.context or 0), label[:, number]
            centre = _slice_centre(image, None if place is None else place[1:], self.size, generator)
        elif place is not None:
            centre = _inside(place.astype(np.float64), np.array(self.size), np.array(image.shape[1:]), generator)
        else:
            centre = random_centre(image, np.array(self.size, np.float64), generator)
        view = vary_intensity(cut_view(image, centre, matrix, self.size), self.config.augmentation, generator)
        target = cut_view(label, centre, matrix, self.size, mode="nearest")[0].long()
        return view, target

    def _foreground_place(self, item: int, generator: np.random.Generator) -> np.ndarray | None:
        """A random voxel (k, j, i) of a random class present, for `foreground_fraction` of the views."""
        places = self._places[item]
        if not places or generator.random() >= self.config.foreground_fraction:
            return None
        of_class = places[int(generator.integers(len(places)))]
        return of_class[int(generator.integers(len(of_class)))]

    @torch.no_grad()
    def score(self, network: nn.Module) -> float | None:
        """Mean Dice over the foreground labels of at most `validation_cases` cases.

        Whole cases at the network's spacing, seen through windows that overlap as they do in inference.
        """
        assert self.validation is not None
        cases: list[dict[str, Any]] = []
        values = {name: index for index, name in enumerate(self.labels)}
        for index in range(min(len(self.validation), self.config.validation_cases)):
            image = np.array(self.validation.image(index), np.float32)
            prediction = self.predict(network, image)
            dice = dice_per_label(self.validation.label(index), prediction, _foreground(values))
            cases.append({"image": self.validation.items[index].id, "dice": dice})
        per_label = {name: _mean([case["dice"][name] for case in cases]) for name in self.labels[1:]}
        mean = _mean(list(per_label.values()))
        means = {case["image"]: _mean(list(case["dice"].values())) for case in cases}
        self.case_scores = {case: known for case, known in means.items() if known is not None}
        self.last_validation = {"task": "segmentation", "mean_dice": mean, "dice": per_label, "cases": cases}
        return mean

    @torch.no_grad()
    def predict(self, network: nn.Module, image: np.ndarray) -> np.ndarray:
        """Class indices (k, j, i) uint8 of a prepared image (C, k, j, i)."""
        device = next(network.parameters()).device
        batch = windows_at_once(device, self.size)
        if len(self.size) == 3:
            logits = sliding_window(network, torch.from_numpy(image), self.size, overlap=OVERLAP, batch=batch,
                                    device=device)
            return logits.argmax(0).to(torch.uint8).cpu().numpy()
        slices = slice_logits(network, image, self.size, context=self.config.context or 0, overlap=OVERLAP, batch=batch,
                              device=device)
        return torch.cat([logits.argmax(0).to(torch.uint8) for logits in slices]).cpu().numpy()


def whole_slice_centre(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The centre of a slice (C, rows, columns), moved by up to a tenth of its sides."""
    sides = np.array(image.shape[1:], np.float64)
    return (sides - 1) / 2 + generator.uniform(-0.1, 0.1, 2) * sides


def _slice_centre(image: np.ndarray, place: np.ndarray | None, size: tuple[int, ...],
                  generator: np.random.Generator) -> np.ndarray:
    """The centre of a view of a slice (C, rows, columns): all of it, or where it is larger than `size` a part of it.

    Such a part lies near `place`, or anywhere.
    """
    whole, sides = whole_slice_centre(image, generator), np.array(image.shape[1:])
    if np.all(sides <= size):
        return whole
    near = generator.uniform(0, sides - 1) if place is None else place.astype(np.float64)
    return np.where(sides <= size, whole, _inside(near, np.array(size), sides, generator))


def _inside(place: np.ndarray, size: np.ndarray, spatial: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A centre near `place` (up to a quarter of the view away), inside where the view fits, else about the middle."""
    wanted = place + generator.uniform(-0.25, 0.25, len(size)) * size
    low = (size - 1) / 2
    inside = np.clip(wanted, low, np.maximum(low, spatial - 1 - low))
    return np.where(size >= spatial, (spatial - 1) / 2 + generator.uniform(-0.1, 0.1, len(size)) * size, inside)


def _places(label: np.ndarray, most: int = 20_000) -> list[np.ndarray]:
    """For each foreground class present, voxels (n, 3) of it, evenly thinned to `most`."""
    result = []
    for value in np.unique(label):
        if value:
            places = np.argwhere(label == value)
            result.append(places[::max(1, len(places) // most)].astype(np.int32))
    return result


def _foreground(values: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in values.items() if value != 0}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
