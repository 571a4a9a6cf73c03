"""VIS-MAE (arXiv 2402.01034): a 2-D Swin masked autoencoder with window masking and masked-pixel MSE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from medmae.datasets import Corpus
from medmae.networks import architecture_for, build_network
from medmae.networks.layers import denormalised_patches
from medmae.networks.presets import preset as network_preset
from medmae.networks.visible_plan import VisiblePlan, visible_plan
from medmae.pretraining.masking import block_mask, expand_mask
from medmae.pretraining.method import Defaults, PretrainingMethod, Reconstructions, preset_value
from medmae.training.randomness import Draw, random_generator
from medmae.training.task import Batch
from medmae.training.views import cut_view

_DEFAULTS = {
    "tiny": Defaults(steps=1000, batch_size=16, learning_rate=1e-3, precision="auto"),
    "small": Defaults(steps=20_000, batch_size=128, learning_rate=1e-3, precision="auto"),
    # 800 epochs of 2.5 million images at an effective batch of 640 per the published command, without gradient exchange
    "base": Defaults(steps=390_000, batch_size=640, learning_rate=1e-3, precision="auto", warmup=10 / 800),
}


@dataclass(frozen=True)
class VisMaeSettings:
    """`mask_ratio` of 16x16-pixel blocks are hidden; views are square crops of `crop_scale` of the longest side.

    ``crop_scale=(1, 1)`` is the published recipe (whole image); smaller crops help where images are few.

    With `visible_only`, hidden tokens are left out of the encoder instead of being replaced by the mask token; False
    is the published recipe, which costs half as much again (docs/methods.md).
    """

    mask_ratio: float = 0.75
    crop_scale: tuple[float, float] = (0.6, 1.1)
    flip: bool = True
    normalise_target: bool = False
    visible_only: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError(f"crop_scale must be two rising positive numbers, not {self.crop_scale}")


class _MaskedPixelLoss(nn.Module):
    """The network with its loss: MSE over the pixels of hidden tokens only."""

    def __init__(self, network: nn.Module, normalise_target: bool) -> None:
        super().__init__()
        self.network = network
        self.normalise_target = normalise_target

    def forward(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        prediction = self.network(batch["images"], batch["mask"], VisiblePlan.of(batch))
        loss = self.network.masked_loss(prediction, batch["images"], batch["mask"],  # type: ignore[operator]
                                        normalise_patches=self.normalise_target)
        return {"loss": loss}


class VisMaePretraining(PretrainingMethod):
    """Items are slices: every image is one, a volume has as many as slices."""

    Settings: ClassVar[type] = VisMaeSettings
    spatial_dims: ClassVar[int] = 2
    settings: VisMaeSettings

    def __init__(self, preset: str, channels: int, corpus: Corpus, settings: VisMaeSettings, seed: int,
                 weight_decay: float) -> None:
        super().__init__(preset, channels, corpus, settings, seed, weight_decay)
        self.architecture = architecture_for("vis-mae", preset, "encoder", channels, 0)
        self.network = build_network(self.architecture)
        self.module = _MaskedPixelLoss(self.network, settings.normalise_target)
        self._size: tuple[int, ...] = tuple(network_preset("vis-mae", preset).input_size)
        self._first = np.concatenate([[0], np.cumsum(corpus.items.shapes[:, 1])])

    @classmethod
    def defaults(cls, preset: str) -> Defaults:
        """Schedule of the preset; base as published (docs/methods.md)."""
        return preset_value(_DEFAULTS, preset)

    @classmethod
    def settings_for(cls, preset: str) -> VisMaeSettings:
        """Base sees whole images as published, the small presets crops, because their corpora are small."""
        return VisMaeSettings(crop_scale=(1.0, 1.0)) if preset == "base" else VisMaeSettings()

    @property
    def number_of_items(self) -> int:
        """The number of slices."""
        return int(self._first[-1])

    def load_batch(self, draws: Sequence[Draw]) -> Batch:
        """images (B, C, rows, columns) float32; mask (B, block rows, block columns) bool, True = hidden; its plan."""
        views = [self._view(draw) for draw in draws]
        mask = np.stack([mask for _, mask in views])
        return {"images": torch.stack([image for image, _ in views]), "mask": torch.from_numpy(mask),
                **self._plan(mask)}

    def _plan(self, mask: np.ndarray) -> dict[str, torch.Tensor]:
        """The tensors of a `VisiblePlan`; none where hidden tokens are replaced as published."""
        if not self.settings.visible_only:
            return {}
        encoder: Any = self.network.encoder
        return visible_plan(mask, stages=len(encoder.depths), window=encoder.window,
                            mask_block=self.network.mask_block).tensors()  # type: ignore[arg-type]

    def _view(self, draw: Draw) -> tuple[torch.Tensor, np.ndarray]:
        image, item_id, number = self._slice(draw.item)
        generator = random_generator(self.seed, draw.epoch, item_id, number)
        sides = np.array(image.shape[1:], np.float64)
        scale = generator.uniform(*self.settings.crop_scale)
        step = scale * sides.max() / np.array(self._size)
        room = np.maximum(0, sides - scale * sides.max()) / 2
        centre = (sides - 1) / 2 + generator.uniform(-1, 1, 2) * room
        direction = np.array([1.0, -1.0 if self.settings.flip and generator.random() < 0.5 else 1.0])
        view = cut_view(image, centre, np.diag(step * direction), self._size)
        return view, block_mask(self._mask_grid, self.settings.mask_ratio, generator)

    @property
    def _mask_grid(self) -> tuple[int, ...]:
        return tuple(self.network.mask_grid(self._size))  # type: ignore[operator]

    def _slice(self, item: int) -> tuple[np.ndarray, str, int]:
        index = int(np.searchsorted(self._first, item, side="right")) - 1
        number = item - int(self._first[index])
        return self.corpus.image(index)[:, number], self.corpus.items[index].id, number

    @property
    def shown_item(self) -> tuple[int, int]:
        """The middle slice of an image in the middle of the corpus; the first ones of a volume may be empty."""
        index = len(self.corpus) // 2
        return int(self._first[index]) + int(self.corpus.items.shapes[index, 1]) // 2, index

    @torch.no_grad()
    def reconstruct_items(self, items: Sequence[int]) -> Reconstructions:
        """Whole images with hidden blocks filled in by the network."""
        device = next(self.network.parameters()).device
        self.network.eval()
        images, masks = [], []
        for item in items:
            image, item_id, number = self._slice(item)
            sides = np.array(image.shape[1:], np.float64)
            step = np.diag(sides.max() / np.array(self._size))
            images.append(cut_view(image, (sides - 1) / 2, step, self._size))
            generator = random_generator(self.seed, "reconstruct", item_id, number)
            masks.append(block_mask(self._mask_grid, self.settings.mask_ratio, generator))
        batch, mask = torch.stack(images).to(device), np.stack(masks)
        plan = VisiblePlan.of({name: tensor.to(device) for name, tensor in self._plan(mask).items()})
        prediction = self.network(batch, torch.from_numpy(mask).to(device), plan).float()
        if self.settings.normalise_target:
            prediction = denormalised_patches(prediction, self.network.patchify(batch))  # type: ignore[operator]
        result = self.network.unpatchify(prediction, self._size)  # type: ignore[operator]
        pixels = np.stack([expand_mask(one, self._size) for one in mask])
        return Reconstructions(batch.cpu().numpy(), pixels, result.cpu().numpy())

