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

from medmae.networks.layers import NORM_EPS, crop_to, pad_to_multiple
from medmae.networks.vit import Grid, Patch, VitEncoder, as_map, three_sides


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


def upsample_strides(patch: Grid) -> list[Grid]:
    """Strides of the steps from voxels (first) to tokens (last) for a patch (k, j, i) of powers of two.

    From the tokens on every axis is doubled as long as it is coarser than voxels, so axes with smaller patches stop
    first: with (4, 16, 16) the two finest steps leave k alone. Thin volumes have such patches because their voxels are
    long in k; their tokens, and the coarse levels, are then about as long as wide.
    """
    if any(side & (side - 1) for side in patch) or max(patch) < 2:
        raise ValueError(f"the patch of UNETR must have powers of two as sides, not {patch}")
    doublings = [side.bit_length() - 1 for side in patch]
    levels = max(doublings)
    strides = []
    for level in range(levels):
        k, j, i = (2 if level >= levels - count else 1 for count in doublings)
        strides.append((k, j, i))
    return strides


def upsample(channels_in: int, channels_out: int, stride: Grid) -> nn.ConvTranspose3d:
    """A transposed convolution without overlap that multiplies the sides by `stride`."""
    return nn.ConvTranspose3d(channels_in, channels_out, kernel_size=stride, stride=stride, bias=False)


class UpBlock(nn.Module):
    """Enlarge the coarse map, join the skip, and mix both."""

    def __init__(self, *, channels_in: int, channels_out: int, stride: Grid) -> None:
        super().__init__()
        self.up = upsample(channels_in, channels_out, stride)
        self.mix = ResidualBlock(channels_in=2 * channels_out, channels_out=channels_out)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """(B, channels_in, *grid) and (B, channels_out, *stride grid) -> (B, channels_out, *stride grid)."""
        return self.mix(torch.cat([self.up(coarse), skip], dim=1))


def skip_path(width: int, channels: int, strides: Sequence[Grid]) -> nn.Sequential:
    """Bring hidden tokens (B, width, *grid) to `channels` on a finer grid; `strides` from fine to coarse."""
    first, *others = reversed(strides)
    layers: list[nn.Module] = [upsample(width, channels, first)]
    for stride in others:
        layers += [upsample(channels, channels, stride), ResidualBlock(channels_in=channels, channels_out=channels)]
    return nn.Sequential(*layers)


class UnetrDecoder(nn.Module):
    """The convolutional half: level 0 (voxels) to the one before the tokens, with feature_size * 2**level channels.

    Args:
        channels: channels of the volume.
        width: channels of a token.
        strides: from each level to the next coarser one, see `upsample_strides`.
        feature_size: channels at voxel resolution.
    """

    def __init__(self, *, channels: int, width: int, strides: Sequence[Grid], feature_size: int) -> None:
        super().__init__()
        levels = len(strides)
        sizes = [feature_size * 2**level for level in range(levels)]
        self.image_block = ResidualBlock(channels_in=channels, channels_out=feature_size)
        self.skip_paths = nn.ModuleList(
            skip_path(width, sizes[level], strides[level:]) for level in range(1, levels))
        self.up_blocks = nn.ModuleList(
            UpBlock(channels_in=width if level == levels - 1 else sizes[level + 1], channels_out=sizes[level],
                    stride=strides[level]) for level in range(levels))

    def forward(self, volumes: Tensor, hidden: Sequence[Tensor], coarsest: Tensor) -> list[Tensor]:
        """Raw volumes, hidden maps (B, width, *grid) from early to late, and the last map, to features.

        Returns:
            The maps of all levels, voxels first.
        """
        features = [coarsest]
        for level in range(len(self.up_blocks) - 1, 0, -1):
            features.append(self.up_blocks[level](features[-1], self.skip_paths[level - 1](hidden[level - 1])))
        features.append(self.up_blocks[0](features[-1], self.image_block(volumes)))
        return features[:0:-1]


class Unetr(nn.Module):
    """ViT encoder without CLS; hidden states and the raw image join the decoder; 1x1x1 head.

    Args:
        channels: channels of the volume.
        classes: classes including background.
        patch: sides of a patch, powers of two: 16 as published, 8 for finer tokens, (4, 16, 16) for thin volumes.
        width, depth, heads, position_grid, mlp_width, norm_eps: see `VitEncoder`.
        skip_blocks: blocks, counted from 1, whose output joins the decoder: log2(longest side of a patch) - 1 of them,
            ascending.
        feature_size: channels at voxel resolution.
        deep_supervision: how many coarser levels have a head of their own, for `deep_logits`.
    """

    def __init__(self, *, channels: int, classes: int, patch: Patch = 16, width: int = 768, depth: int = 12,
                 heads: int = 12, skip_blocks: Sequence[int] = (4, 7, 10), feature_size: int = 48,
                 position_grid: Sequence[int] | None = None, deep_supervision: int = 0, mlp_width: int | None = None,
                 norm_eps: float = NORM_EPS) -> None:
        super().__init__()
        self.strides = upsample_strides(three_sides(patch))
        skips = len(self.strides) - 1
        if len(skip_blocks) != skips or list(skip_blocks) != sorted(set(skip_blocks)) or (
                skip_blocks and not 1 <= skip_blocks[0] <= skip_blocks[-1] <= depth):
            raise ValueError(f"a patch of {patch} needs {skips} ascending skip blocks between 1 and {depth}, "
                             f"not {tuple(skip_blocks)}")
        if not 0 <= deep_supervision <= skips:
            raise ValueError(f"a patch of {patch} has {skips} coarser levels, not {deep_supervision} to supervise")
        self.skip_blocks = tuple(skip_blocks)
        self.encoder = VitEncoder(channels=channels, patch=patch, width=width, depth=depth, heads=heads,
                                  class_token=False, position_grid=position_grid, mlp_width=mlp_width,
                                  norm_eps=norm_eps)
        self.decoder = UnetrDecoder(channels=channels, width=width, strides=self.strides, feature_size=feature_size)
        self.head = nn.Conv3d(feature_size, classes, kernel_size=1)
        self.deep_heads = nn.ModuleList(nn.Conv3d(feature_size * 2**level, classes, kernel_size=1)
                                        for level in range(1, deep_supervision + 1))

    def _levels(self, volumes: Tensor) -> list[Tensor]:
        padded = pad_to_multiple(volumes, self.encoder.patch)
        grid = self.encoder.grid(padded.shape[2:])
        _, tokens, hidden = self.encoder(padded, hidden_after=self.skip_blocks)
        return self.decoder(padded, [as_map(state, grid) for state in hidden], as_map(tokens, grid))

    @property
    def takes_any_window(self) -> bool:
        """Whether smaller windows are as good: where positions are computed, not resized from a stored table."""
        return self.encoder.position_grid is None

    def voxel_features(self, volumes: Tensor) -> Tensor:
        """What the head sees: volumes (B, C, k, j, i) of any size to (B, feature_size, k, j, i)."""
        return crop_to(self._levels(volumes)[0], volumes.shape[2:])

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (B, C, k, j, i) of any size to logits (B, classes, k, j, i); padded inside to the patch."""
        return self.head(self.voxel_features(volumes))

    def deep_logits(self, volumes: Tensor) -> list[Tensor]:
        """Logits for training with deep supervision: those of `forward` first, then one map a coarser level.

        Each map is coarser than the one before by a stride of `strides`; a side that it does not divide is rounded up.
        """
        levels, size = self._levels(volumes), list(volumes.shape[2:])
        logits = [crop_to(self.head(levels[0]), size)]
        for head, features, stride in zip(self.deep_heads, levels[1:], self.strides, strict=False):
            size = [-(-side // step) for side, step in zip(size, stride, strict=True)]
            logits.append(crop_to(head(features), size))
        return logits
