"""VIS-MAE's pretraining network: a Swin masked autoencoder with window masking (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medmae.errors import BadInput
from medmae.networks.layers import initialise, masked_mean_squared_error, normalised_patches
from medmae.networks.swin_blockwise import per_block, per_image, run_blocks, scatter_blocks
from medmae.networks.swin_encoder import SwinDecoder, SwinEncoder, SwinStage
from medmae.networks.visible_plan import VisiblePlan


class SwinMAE(nn.Module):
    """Swin encoder, mirrored decoder without skips, and a linear layer that predicts the pixels of each patch.

    As published, masked tokens are replaced by one learned token after the patch embedding, and the whole grid goes
    through the encoder; with a `VisiblePlan` only the visible tokens do (docs/methods.md).

    Args:
        channels: channels of the image.
        patch, width, depths, heads, window, drop_path, masked_padding: see `SwinEncoder`.
        mask_block: side of a masking block in tokens (4 tokens of 4 pixels = 16 pixels).
    """

    def __init__(self, *, channels: int, patch: int = 4, width: int = 96, depths: Sequence[int] = (2, 2, 2, 2),
                 heads: Sequence[int] = (3, 6, 12, 24), window: int = 7, mask_block: int = 4,
                 drop_path: float = 0.1, masked_padding: bool = True) -> None:
        super().__init__()
        self.patch, self.mask_block = patch, mask_block
        self.encoder = SwinEncoder(channels=channels, patch=patch, width=width, depths=depths, heads=heads,
                                   window=window, drop_path=drop_path, masked_padding=masked_padding)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder = SwinDecoder(self.encoder, skips=False)
        self.decoder_pred = nn.Linear(width, patch * patch * channels)
        self.apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def mask_grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Blocks (rows, cols) of the masking grid of an image (H, W)."""
        side = self.patch * self.mask_block
        return -(-size[0] // side), -(-size[1] // side)

    def token_mask(self, mask: Tensor, size: Sequence[int]) -> Tensor:
        """Block mask (B, block rows, block cols) to token mask (B, rows, cols) of an image (H, W)."""
        fine = mask.repeat_interleave(self.mask_block, dim=1).repeat_interleave(self.mask_block, dim=2)
        return fine[:, :size[0] // self.patch, :size[1] // self.patch]

    def forward_encoder(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W), masked blocks hidden, to the coarsest map (B, r, c, C), channels last."""
        tokens = self.encoder.embed(images)
        if mask is not None:
            hidden = self.token_mask(mask, images.shape[2:])[..., None]
            tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        return self.encoder(tokens)[1][-1]

    def forward(self, images: Tensor, mask: Tensor, plan: VisiblePlan | None = None) -> Tensor:
        """Predict the pixels of every patch.

        Args:
            images: (B, C, H, W), sides multiples of the encoder's stride (32 in `base`).
            mask: (B, block rows, block cols) bool, True = masked; the grid is `mask_grid((H, W))`.
            plan: of the same mask: hidden tokens are left out of the encoder instead of being replaced.

        Returns:
            (B, tokens, patch * patch * C), as `patchify` orders them.

        Raises:
            BadInput: the image or the mask has another size.
        """
        size, stride = tuple(images.shape[2:]), self.encoder.stride
        if size[0] % stride or size[1] % stride:
            raise BadInput(f"VIS-MAE pretraining needs images whose sides are multiples of {stride}, not {size}. "
                           f"Choose an input size such as {tuple(-(-side // stride) * stride for side in size)}.")
        if tuple(mask.shape[1:]) != self.mask_grid(size):
            raise BadInput(f"The mask has {tuple(mask.shape[1:])} blocks, but an image of {size} pixels "
                           f"has {self.mask_grid(size)}.")
        coarsest = self.forward_encoder(images, mask) if plan is None else self.forward_visible(images, plan)
        return self.decoder_pred(self.decoder(coarsest, ())).flatten(1, 2)

    def forward_visible(self, images: Tensor, plan: VisiblePlan) -> Tensor:
        """Images (B, C, H, W) to the coarsest map (B, r, c, C), channels last; hidden tokens do not enter the encoder.

        The stages in which the blocks have tokens of their own run on the visible blocks alone. Then the gaps of the
        whole map are filled with what the merging layers make of the mask token, and the other stages see all of it.
        """
        grid = self.mask_grid(images.shape[2:])
        batch, count = plan.blocks.shape
        side = self.patch * self.mask_block
        cut = images.view(batch, -1, grid[0], side, grid[1], side).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        pixels = cut[torch.arange(batch, device=images.device)[:, None], plan.blocks].flatten(0, 1)
        tokens = per_image(self.encoder.patch_embed(pixels), batch)
        filling = self.mask_token.view(1, 1, 1, -1)
        stages = cast("list[SwinStage]", list(self.encoder.stages))
        for stage, packings in zip(stages, plan.packings, strict=False):
            tokens = run_blocks(stage.blocks, tokens, *packings)
            merging = stage.downsample if tokens.shape[1] > count else None
            if merging is not None:
                tokens = per_image(merging(per_block(tokens, count)), batch)
                filling = merging(filling.expand(1, 2, 2, -1))
        whole = scatter_blocks(tokens, plan.blocks, grid, filling.flatten())
        done = len(plan.packings)
        left = stages[done - 1].downsample
        if merging is None and left is not None:  # of blocks that were single tokens: neighbours are merged
            whole = left(whole)
        for stage in stages[done:-1]:
            whole = stage(whole)[1]
        return stages[-1](whole)[0]

    def patchify(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, tokens, patch * patch * C); in a patch (row, col, channel), channel fastest."""
        batch, channels, height, width = images.shape
        cut = images.view(batch, channels, height // self.patch, self.patch, width // self.patch, self.patch)
        return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, self.patch * self.patch * channels)

    def unpatchify(self, patches: Tensor, size: Sequence[int]) -> Tensor:
        """(B, tokens, patch * patch * C) to images (B, C, *size); undoes `patchify`."""
        rows, cols = size[0] // self.patch, size[1] // self.patch
        cut = patches.view(patches.shape[0], rows, cols, self.patch, self.patch, -1)
        return cut.permute(0, 5, 1, 3, 2, 4).reshape(patches.shape[0], -1, size[0], size[1])

    def masked_loss(self, prediction: Tensor, images: Tensor, mask: Tensor, *,
                    normalise_patches: bool = False) -> Tensor:
        """Mean squared error over the pixels of masked tokens only, in fp32 (docs/methods.md).

        Args:
            prediction: (B, tokens, patch * patch * C) of `forward`.
            images: (B, C, H, W), the intact images.
            mask: (B, block rows, block cols) bool, True = masked.
            normalise_patches: standardise every target patch first (off in the published recipe).
        """
        target = self.patchify(images.float())
        if normalise_patches:
            target = normalised_patches(target)
        return masked_mean_squared_error(prediction, target, self.token_mask(mask, images.shape[2:]).flatten(1))

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) of any size to the output of every stage (B, C_stage, rows, cols), coarsest last."""
        return self.encoder.features(images)
