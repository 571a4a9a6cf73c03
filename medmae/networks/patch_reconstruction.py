"""What networks that reconstruct hidden patches of volumes have in common: cutting, putting together, the loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medmae.networks.layers import masked_mean_squared_error, normalised_patches
from medmae.networks.vit import Grid, patchify, unpatchify


class PatchReconstruction(nn.Module):
    """A network whose predictions are the voxels of patches; `patch` is their size (k, j, i), or the side of a cube."""

    patch: int | Grid

    def patchify(self, volumes: Tensor) -> Tensor:
        """(B, C, k, j, i) to (B, tokens, voxels of a patch * C); in a patch (k, j, i, channel), channel fastest."""
        return patchify(volumes, self.patch)

    def unpatchify(self, patches: Tensor, grid: Grid) -> Tensor:
        """(B, tokens, voxels of a patch * C) to (B, C, k, j, i); undoes `patchify`."""
        return unpatchify(patches, self.patch, grid)

    def masked_loss(self, prediction: Tensor, volumes: Tensor, keep: Tensor, *,
                    normalise_patches: bool = False) -> Tensor:
        """Mean squared error over the voxels of the hidden patches, in fp32.

        Args:
            prediction: (B, N, voxels of a patch * C).
            volumes: (B, C, k, j, i), the intact volumes.
            keep: (B, n) the places that do not count, those that the encoder saw; one may come up repeatedly.
            normalise_patches: standardise every target patch first.
        """
        target = self.patchify(volumes.float())
        if normalise_patches:
            target = normalised_patches(target)
        masked = torch.ones(target.shape[:2], dtype=torch.bool, device=target.device).scatter(1, keep, False)
        return masked_mean_squared_error(prediction, target, masked)
