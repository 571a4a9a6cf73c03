"""UNETR, GL-MAE's segmentation network: a ViT encoder with a convolutional decoder (docs/methods.md).

The blocks are the published ones: residual, instance norm without affine weights, LeakyReLU 0.01. They compute what
MONAI's UNETR blocks compute (tested) at the same speed; MONAI's are not used because importing them takes 1.7 s beside
torch's 1.1 s (2 CPU cores), on every start of a segmentation. One training step of the ``tiny`` preset (2 crops of 48
voxels cubed, AdamW) takes 0.43 s on the same cores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from medmae.networks.layers import crop_to, pad_to_multiple
from medmae.networks.vit import VitEncoder, as_map


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with instance norm, and a 1x1x1 path around them where the channels change."""

    def __init__(self, *, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, kernel_size=3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.conv3 = (nn.Conv3d(channels_in, channels_out, kernel_size=1, bias=False)
                      if channels_in != channels_out else None)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, channels_in, k, j, i) -> (B, channels_out, k, j, i)."""
        around = volume if self.conv3 is None else functional.instance_norm(self.conv3(volume))
        volume = functional.leaky_relu(functional.instance_norm(self.conv1(volume)), 0.01, inplace=True)
        volume = functional.instance_norm(self.conv2(volume))
        return functional.leaky_relu(volume + around, 0.01, inplace=True)


def double(channels_in: int, channels_out: int) -> nn.ConvTranspose3d:
    """A transposed convolution that doubles every side."""
    return nn.ConvTranspose3d(channels_in, channels_out, kernel_size=2, stride=2, bias=False)


class UpBlock(nn.Module):
    """Double the coarse map, join the skip, and mix both."""

    def __init__(self, *, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.up = double(channels_in, channels_out)
        self.mix = ResidualBlock(channels_in=2 * channels_out, channels_out=channels_out)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, channels_in, *grid) and (B, channels_out, *2 grid) -> (B, channels_out, *2 grid)."""
        return self.mix(torch.cat([self.up(coarse), skip], dim=1))


def skip_path(width: int, channels: int, steps: int) -> nn.Sequential:
    """Bring hidden tokens (B, width, *grid) to `channels` on a grid finer by 2**steps."""
    layers: list[nn.Module] = [double(width, channels)]
    for _ in range(steps - 1):
        layers += [double(channels, channels), ResidualBlock(channels_in=channels, channels_out=channels)]
    return nn.Sequential(*layers)


class UnetrDecoder(nn.Module):
    """The convolutional half: levels 0 (voxels) to log2(patch) - 1, with feature_size * 2**level channels."""

    def __init__(self, *, channels: int, width: int, levels: int, feature_size: int) -> None:
        super().__init__()
        sizes = [feature_size * 2**level for level in range(levels)]
        self.image_block = ResidualBlock(channels_in=channels, channels_out=feature_size)
        self.skip_paths = nn.ModuleList(
            skip_path(width, sizes[level], levels - level) for level in range(1, levels))
        self.up_blocks = nn.ModuleList(
            UpBlock(channels_in=width if level == levels - 1 else sizes[level + 1], channels_out=sizes[level])
            for level in range(levels))

    def forward(self, volumes: Tensor, hidden: Sequence[Tensor], coarsest: Tensor) -> Tensor:
        """Raw volumes, hidden maps (B, width, *grid) from early to late, and the last map, to voxel features."""
        features = coarsest
        for level in range(len(self.up_blocks) - 1, 0, -1):
            features = self.up_blocks[level](features, self.skip_paths[level - 1](hidden[level - 1]))
        return self.up_blocks[0](features, self.image_block(volumes))


class Unetr(nn.Module):
    """ViT encoder without CLS; hidden states and the raw image join the decoder; 1x1x1 head.

    Args:
        channels: channels of the volume.
        classes: classes including background.
        patch: side of a patch, a power of two: 16 as published, or 8.
        width, depth, heads: see `VitEncoder`.
        skip_blocks: blocks, counted from 1, whose output joins the decoder: log2(patch) - 1 of them, ascending.
        feature_size: channels at voxel resolution.
    """

    def __init__(self, *, channels: int, classes: int, patch: int = 16, width: int = 768, depth: int = 12,
                 heads: int = 12, skip_blocks: Sequence[int] = (4, 7, 10), feature_size: int = 48) -> None:
        super().__init__()
        levels = patch.bit_length() - 1
        if 2**levels != patch or levels < 1:
            raise ValueError(f"the patch of UNETR must be a power of two, not {patch}")
        if len(skip_blocks) != levels - 1 or list(skip_blocks) != sorted(set(skip_blocks)) or (
                skip_blocks and not 1 <= skip_blocks[0] <= skip_blocks[-1] <= depth):
            raise ValueError(f"a patch of {patch} needs {levels - 1} ascending skip blocks between 1 and {depth}, "
                             f"not {tuple(skip_blocks)}")
        self.skip_blocks = tuple(skip_blocks)
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=False)
        self.decoder = UnetrDecoder(channels=channels, width=width, levels=levels, feature_size=feature_size)
        self.head = nn.Conv3d(feature_size, classes, kernel_size=1)

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes, k, j, i); padded inside to the patch."""
        padded = pad_to_multiple(volumes, self.encoder.patch)
        grid = self.encoder.grid(padded.shape[2:])
        _, tokens, hidden = self.encoder(padded, hidden_after=self.skip_blocks)
        features = self.decoder(padded, [as_map(state, grid) for state in hidden], as_map(tokens, grid))
        return crop_to(self.head(features), volumes.shape[2:])
