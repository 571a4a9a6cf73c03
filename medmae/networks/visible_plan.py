"""Which blocks of each image a masked autoencoder encodes, and how their tokens are packed for window attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmae.networks.window_packing import Packing, pack

StagePackings = tuple[Packing, Packing]  # of plain and of shifted windows


@dataclass(frozen=True)
class VisiblePlan:
    """The blocks of a batch that a Swin masked autoencoder sees; made by `visible_plan`.

    blocks: (B, V) int64, the visible masking blocks in raster order.
    packings: for each stage that works block by block, finest first, its packings of the visible tokens.
    """

    blocks: Tensor
    packings: tuple[StagePackings, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named tensors, as a part of a batch."""
        found = {"visible.blocks": self.blocks}
        for number, stage in enumerate(self.packings):
            for kind, packing in zip(("plain", "shifted"), stage, strict=True):
                found |= packing.tensors(f"visible.{number}.{kind}")
        return found

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> VisiblePlan | None:
        """The plan that is a part of a batch; None where there is none."""
        if "visible.blocks" not in batch:
            return None
        stages = len({name.split(".")[1] for name in batch if name.startswith("visible.")} - {"blocks"})
        return cls(batch["visible.blocks"], tuple(
            (Packing.of(batch, f"visible.{number}.plain"), Packing.of(batch, f"visible.{number}.shifted"))
            for number in range(stages)))


def blockwise_sides(stages: int, mask_block: int) -> tuple[int, ...]:
    """Sides, in tokens, of a masking block in the stages that can work block by block, finest first.

    They end where merging makes one token of neighbouring blocks, and before the coarsest stage: that one sees the
    whole map, so that what is known reaches what is hidden.
    """
    sides = [mask_block]
    while len(sides) < stages - 1 and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    return tuple(sides)


def visible_plan(masked: NDArray[np.bool_], *, stages: int, window: int, mask_block: int) -> VisiblePlan:
    """Plan a batch.

    Args:
        masked: (B, block rows, block cols), True = hidden from the encoder.
        stages: stages of the encoder.
        window: side of the attention windows in tokens.
        mask_block: side of a block in tokens of the finest stage.

    Raises:
        ValueError: the images differ in the number of visible blocks, or one has none.
    """
    visible = ~masked.reshape(len(masked), -1)
    counts = sorted({int(count) for count in visible.sum(1)})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"all images of a batch need the same number of visible blocks, not {counts}")
    blocks = np.nonzero(visible)[1].reshape(len(masked), -1)
    return VisiblePlan(torch.from_numpy(blocks), tuple(
        _packings(blocks, masked.shape[2], side, window) for side in blockwise_sides(stages, mask_block)))


def _packings(blocks: NDArray[np.int64], across: int, side: int, window: int) -> StagePackings:
    inside = np.arange(side)
    rows = (blocks // across)[:, :, None, None] * side + inside[:, None]
    cols = (blocks % across)[:, :, None, None] * side + inside
    shape = (*blocks.shape, side, side)
    rows, cols = (np.broadcast_to(axis, shape).reshape(len(blocks), -1) for axis in (rows, cols))
    return pack(rows, cols, window, 0), pack(rows, cols, window, window // 2)
