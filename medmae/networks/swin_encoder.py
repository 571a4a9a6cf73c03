"""The Swin encoder and the mirrored decoder that VIS-MAE's three networks are made of (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmae.networks.layers import NORM_EPS, pad_to_multiple
from medmae.networks.swin import PatchEmbed, PatchExpanding, PatchMerging, swin_blocks


class SwinStage(nn.Module):
    """The blocks of one resolution and, but in the last stage, the merging that follows them."""

    def __init__(self, *, blocks: nn.ModuleList, downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.downsample = downsample

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, rows, cols, C) to the output, of the same shape, and to what the next stage gets."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens, tokens if self.downsample is None else self.downsample(tokens)


class SwinEncoder(nn.Module):
    """Hierarchical encoder without absolute positions and without a final norm.

    Args:
        channels: channels of the image.
        patch: side of a patch in pixels.
        width: channels of the first stage; every further stage has twice as many.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        window: side of an attention window in tokens.
        drop_path: largest rate of stochastic depth, reached by the last block.
        masked_padding: hide the padding of windows from the attention; False = officially trained weights.
    """

    def __init__(self, *, channels: int, patch: int, width: int, depths: Sequence[int], heads: Sequence[int],
                 window: int, drop_path: float, masked_padding: bool = True) -> None:
        super().__init__()
        if len(depths) != len(heads):
            raise ValueError(f"{len(depths)} depths but {len(heads)} head counts")
        self.patch = patch
        self.widths = tuple(width * 2**stage for stage in range(len(depths)))
        self.depths, self.heads, self.window = tuple(depths), tuple(heads), window
        self.masked_padding = masked_padding
        self.drop_paths = stage_drop_paths(depths, drop_path)
        self.patch_embed = PatchEmbed(channels=channels, patch=patch, width=width)
        last = len(depths) - 1
        self.stages = nn.ModuleList(
            SwinStage(
                blocks=swin_blocks(width=self.widths[stage], heads=heads[stage], window=window,
                                   drop_paths=self.drop_paths[stage], masked_padding=masked_padding),
                downsample=PatchMerging(width=self.widths[stage]) if stage < last else None)
            for stage in range(len(depths)))

    @property
    def stride(self) -> int:
        """Pixels of one token of the coarsest stage, in each direction."""
        return self.patch * 2 ** (len(self.depths) - 1)

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of any size to tokens (B, ceil(H / patch), ceil(W / patch), width)."""
        return self.patch_embed(pad_to_multiple(images, self.patch))

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens (B, rows, cols, width) to the inputs and the outputs (before merging) of every stage, finest first."""
        inputs, outputs = [], []
        for stage in self.stages:
            inputs.append(tokens)
            output, tokens = stage(tokens)
            outputs.append(output)
        return inputs, outputs

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to the output of every stage as (B, C_stage, rows, cols), coarsest last."""
        return [output.permute(0, 3, 1, 2).contiguous() for output in self(self.embed(images))[1]]


class SwinUpStage(nn.Module):
    """The blocks of one resolution of the decoder and, but in the last stage, the expanding that follows them."""

    def __init__(self, *, blocks: nn.ModuleList, upsample: PatchExpanding | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.upsample = upsample

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, rows, cols, C) -> (B, 2 rows, 2 cols, C / 2), or the same shape in the last stage."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens if self.upsample is None else self.upsample(tokens)


class SwinDecoder(nn.Module):
    """The mirror of a Swin encoder, from its coarsest map back to the grid of patches.

    With `skips`, the encoder's stage inputs are concatenated ([decoder, skip]) and reduced by a 1x1 convolution before
    each stage (Swin-Unet); pretraining has none. The weights of the rest have the same names in both.
    """

    def __init__(self, encoder: SwinEncoder, *, skips: bool) -> None:
        super().__init__()
        widths = encoder.widths
        self.first_expand = PatchExpanding(width=widths[-1], width_out=widths[-2])
        mirrored = range(len(widths) - 2, -1, -1)
        self.stages = nn.ModuleList(
            SwinUpStage(
                blocks=swin_blocks(width=widths[stage], heads=encoder.heads[stage], window=encoder.window,
                                   drop_paths=encoder.drop_paths[stage], masked_padding=encoder.masked_padding),
                upsample=PatchExpanding(width=widths[stage], width_out=widths[stage - 1]) if stage else None)
            for stage in mirrored)
        self.skips = nn.ModuleList(
            nn.Conv2d(2 * widths[stage], widths[stage], kernel_size=1) for stage in mirrored) if skips else None
        self.norm = nn.LayerNorm(widths[0], eps=NORM_EPS)

    def forward(self, coarsest: Tensor, stage_inputs: Sequence[Tensor]) -> Tensor:
        """The coarsest map (B, r, c, C) and the encoder's stage inputs, finest first, to (B, rows, cols, width)."""
        tokens = self.first_expand(coarsest)
        for index, stage in enumerate(self.stages):
            if self.skips is not None:
                joined = torch.cat([tokens, stage_inputs[-2 - index]], dim=-1)
                tokens = self.skips[index](joined.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            tokens = stage(tokens)
        return self.norm(tokens)


def stage_drop_paths(depths: Sequence[int], largest: float) -> list[list[float]]:
    """Rates of stochastic depth growing linearly from 0 over all blocks, one list a stage."""
    total = sum(depths)
    rates = [largest * index / max(total - 1, 1) for index in range(total)]
    starts = [sum(depths[:stage]) for stage in range(len(depths))]
    return [rates[start:start + depth] for start, depth in zip(starts, depths, strict=True)]
