"""Which blocks of each image a masked autoencoder encodes and decodes, and how their tokens are packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medmae.networks.window_packing import Packing, pack

StagePackings = tuple[Packing, Packing]  # of plain and of shifted windows


@dataclass(frozen=True)
class BlockPlan:
    """The blocks that a Swin masked autoencoder works on, for a batch; made by `block_plan`.

    visible: (B, V) int64, the masking blocks that are encoded, in raster order.
    decoded: (B, D) int64, the blocks whose pixels are predicted, in raster order.
    encoder: for each stage that works block by block (finest first) its packings of the visible tokens.
    decoder: the same of the decoded tokens, in the decoder's order (finest last), where a block has several tokens.
    """

    visible: Tensor
    decoded: Tensor
    encoder: tuple[StagePackings, ...]
    decoder: tuple[StagePackings, ...]

    def tensors(self) -> dict[str, Tensor]:
        """Everything as named tensors, as a part of a batch."""
        found = {"plan.visible": self.visible, "plan.decoded": self.decoded}
        for part, stages in (("encoder", self.encoder), ("decoder", self.decoder)):
            for number, stage in enumerate(stages):
                for kind, packing in zip(("plain", "shifted"), stage, strict=True):
                    found |= packing.tensors(f"plan.{part}.{number}.{kind}")
        return found

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> BlockPlan | None:
        """The plan that is a part of a batch; None where there is none."""
        if "plan.visible" not in batch:
            return None
        tensors = dict(batch)

        def stages(part: str) -> tuple[StagePackings, ...]:
            count = len({name.split(".")[2] for name in tensors if name.startswith(f"plan.{part}.")})
            return tuple((Packing.of(tensors, f"plan.{part}.{number}.plain"),
                          Packing.of(tensors, f"plan.{part}.{number}.shifted")) for number in range(count))

        return cls(tensors["plan.visible"], tensors["plan.decoded"], stages("encoder"), stages("decoder"))


def blockwise_sides(stages: int, mask_block: int) -> tuple[int, ...]:
    """Sides, in tokens, of a masking block in the stages that can work block by block, finest first.

    They end where merging makes one token of neighbouring blocks, and before the coarsest stage: that one sees the
    whole map, so that what is known reaches what is hidden.
    """
    sides = [mask_block]
    while len(sides) < stages - 1 and sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    return tuple(sides)


def block_plan(masked: NDArray[np.bool_], decoded: NDArray[np.bool_], *, stages: int, window: int,
               mask_block: int) -> BlockPlan:
    """Plan a batch.

    Args:
        masked: (B, block rows, block cols), True = hidden from the encoder.
        decoded: the same shape, True = its pixels are predicted.
        stages: stages of the encoder.
        window: side of the attention windows in tokens.
        mask_block: side of a block in tokens of the finest stage.

    Raises:
        ValueError: the images differ in the number of visible or of decoded blocks, or one has none.
    """
    visible_blocks, decoded_blocks = _chosen(~masked, "visible"), _chosen(decoded, "decoded")
    sides = blockwise_sides(stages, mask_block)
    across = masked.shape[2]
    return BlockPlan(
        torch.from_numpy(visible_blocks), torch.from_numpy(decoded_blocks),
        tuple(_packings(visible_blocks, across, side, window) for side in sides),
        tuple(_packings(decoded_blocks, across, side, window) for side in reversed(sides) if side > 1))


def _chosen(blocks: NDArray[np.bool_], name: str) -> NDArray[np.int64]:
    flat = blocks.reshape(len(blocks), -1)
    counts: Sequence[int] = sorted({int(count) for count in flat.sum(1)})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"all images of a batch need the same number of {name} blocks, not {counts}")
    return np.nonzero(flat)[1].reshape(len(blocks), -1)


def _packings(blocks: NDArray[np.int64], across: int, side: int, window: int) -> StagePackings:
    inside = np.arange(side)
    rows = (blocks // across)[:, :, None, None] * side + inside[:, None]
    cols = (blocks % across)[:, :, None, None] * side + inside
    shape = (*blocks.shape, side, side)
    rows, cols = (np.broadcast_to(axis, shape).reshape(len(blocks), -1) for axis in (rows, cols))
    return pack(rows, cols, window, 0), pack(rows, cols, window, window // 2)
