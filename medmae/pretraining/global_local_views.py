"""Global and local views of volumes, all of them from one read: where they lie, what is hidden, how bright they are.

Everything is drawn here, by the loader, from (seed, epoch, item id); the views themselves are cut by `views_of_batch`
on the device that trains (medmae/training/blocks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medmae.datasets import Corpus
from medmae.pretraining.masking import visible_tokens
from medmae.training.blocks import (
    block_corner,
    block_extents,
    cut_views,
    draw_place,
    outside_tokens,
    vary_intensities,
)
from medmae.training.randomness import Draw, random_generator
from medmae.training.task import Batch

if TYPE_CHECKING:
    from medmae.pretraining.gl_mae_settings import GlMaeSettings


@dataclass(frozen=True)
class ViewKind:
    """Views of one size: how many of a volume, voxels and tokens (k, j, i), the range of scales (1: as stored)."""

    name: str
    count: int
    size: tuple[int, int, int]
    grid: tuple[int, int, int]
    scale: tuple[float, float]


class ViewDrawer:
    """Reads a block of each volume and draws its views.

    The block is large enough for every view of every volume of the corpus, so that all batches have one shape.
    """

    def __init__(self, corpus: Corpus, kinds: Sequence[ViewKind], settings: GlMaeSettings, seed: int) -> None:
        self._corpus, self.kinds, self._settings, self._seed = corpus, tuple(kinds), settings, seed
        shapes, spacings = corpus.items.shapes[:, 1:], corpus.items.spacings_mm
        self._ratios = np.ones_like(spacings)
        if settings.view_spacing_mm is not None:
            self._ratios = np.array(settings.view_spacing_mm) / spacings
        self._whole_voxels = settings.crop == "plain" and settings.view_spacing_mm is None
        largest = np.max([np.array(kind.size) * kind.scale[1] for kind in kinds], axis=0)
        self._extents = block_extents(shapes, self._ratios * largest, settings.block_factor)
        self.block: tuple[int, ...] = tuple(int(side) for side in self._extents.max(0))

    def view_step(self, item: int) -> NDArray[np.float64]:
        """Voxels (3,) of a volume that one voxel of its views takes at scale 1."""
        return self._ratios[item]

    def load(self, draws: Sequence[Draw]) -> Batch:
        """What `views_of_batch` needs, and the masks.

        blocks (B, C, *block) float16, extents (B, 3); of each kind with V views and N tokens: NAME_places (B, V, 2, 3),
        NAME_intensities (B, V, 2), NAME_visible (B, V, n) int64, NAME_outside (B, V, N) bool.
        """
        channels = int(self._corpus.items.shapes[draws[0].item, 0])
        blocks = torch.zeros((len(draws), channels, *self.block), dtype=torch.float16)
        parts = [self._load_one(draw, blocks[number].numpy()) for number, draw in enumerate(draws)]
        extents = torch.from_numpy(self._extents[[draw.item for draw in draws]].astype(np.float32))
        return {"blocks": blocks, "extents": extents,
                **{name: torch.from_numpy(np.stack([part[name] for part in parts])) for name in parts[0]}}

    def padding_shares(self, draws: Sequence[Draw]) -> dict[str, float]:
        """Which share of the voxels of each kind of view lies outside the images; the mean over `draws`."""
        shares: dict[str, list[float]] = {kind.name: [] for kind in self.kinds}
        for draw in draws:
            part = self._load_one(draw, None)
            for kind in self.kinds:
                shares[kind.name] += [outside_tokens(self._extents[draw.item], place, kind.size, kind.grid)[1]
                                      for place in part[f"{kind.name}_places"]]
        return {name: float(np.mean(values)) for name, values in shares.items()}

    def _load_one(self, draw: Draw, out: np.ndarray | None) -> dict[str, np.ndarray]:
        """Copy the block of `draw` to the beginning of `out` (C, *block); the drawn numbers of its views."""
        volume, item_id = self._corpus.image(draw.item), self._corpus.items.id(draw.item)
        extent = self._extents[draw.item]
        corner = block_corner(volume, extent, random_generator(self._seed, draw.epoch, item_id, "block"))
        region = (slice(None), *(slice(int(low), int(low + side)) for low, side in zip(corner, extent, strict=True)))
        block = volume[region]
        if out is not None:
            whole = out[:, :extent[0], :extent[1], :extent[2]]
            whole[...] = block
            block = whole
        numbers: dict[str, np.ndarray] = {}
        for kind in self.kinds:
            generator = random_generator(self._seed, draw.epoch, item_id, kind.name)
            views = [self._draw_view(kind, block, self._ratios[draw.item], generator) for _ in range(kind.count)]
            numbers |= {f"{kind.name}_{name}": np.stack([view[name] for view in views]) for name in views[0]}
        return numbers

    def _draw_view(self, kind: ViewKind, block: np.ndarray, ratio: NDArray[np.float64],
                   generator: np.random.Generator) -> dict[str, np.ndarray]:
        settings, extent = self._settings, np.array(block.shape[1:])
        low, high = kind.scale
        if low < high:  # a view larger than the volume's longest side would only hold more padding
            high = max(low, min(high, float((extent / (kind.size * ratio)).max())))
        step = ratio * float(np.exp(generator.uniform(np.log(low), np.log(high))))
        centre = draw_place(block, kind.size, step, generator, self._whole_voxels)
        signs = np.where(generator.random(3) < 0.5, -1.0, 1.0) if settings.flip else np.ones(3)
        place = np.stack([centre, step * signs]).astype(np.float32)
        contrast, brightness = generator.uniform(-1, 1, 2) * (settings.contrast, settings.brightness)
        outside = outside_tokens(extent, place, kind.size, kind.grid)[0].ravel()
        return {"places": place, "intensities": np.array([1 + contrast, brightness], np.float32), "outside": outside,
                "visible": visible_tokens(outside.size, settings.mask_ratio, generator, outside)}


def views_of_batch(batch: Mapping[str, torch.Tensor], kind: ViewKind, varied: bool) -> torch.Tensor:
    """The views (B, V, C, *size) of a kind, float32, cut and varied on the device that holds the batch.

    Args:
        batch: of `ViewDrawer.load`.
        kind: which views.
        varied: whether contrast and brightness vary at all.
    """
    places = batch[f"{kind.name}_places"]
    views = cut_views(batch["blocks"], places, kind.size)
    if varied:
        vary_intensities(views, batch[f"{kind.name}_intensities"], places, batch["extents"])
    return views


def unscored_tokens(visible: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """Indices (B, n + N) of the tokens that are left out of the reconstruction loss: visible ones and pure padding.

    Args:
        visible: (B, n) what the student saw.
        outside: (B, N) tokens that show nothing of the image; where False, a visible token takes the place.
    """
    numbers = torch.arange(outside.shape[1], device=outside.device).expand_as(outside)
    return torch.cat([visible, torch.where(outside, numbers, visible[:, :1])], dim=1)
