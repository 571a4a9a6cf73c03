"""What MONAI's U-Nets, the convolutional baselines, need around them: any size of image, padded to their stride."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from medmae.networks.layers import crop_to


class PaddedUnet(nn.Module):
    """A U-Net of `levels` grids, each half of the one before, that answers on the grid of any image.

    It has no encoder of ours, so that nothing pretrained can be carried into it.
    """

    takes_any_window = True

    def __init__(self, unet: nn.Module, levels: int) -> None:
        super().__init__()
        self.unet = unet
        self.stride = 2 ** (levels - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, *spatial) of any size to logits (B, classes, *spatial); padded inside to the stride.

        At least two voxels a side are left on the coarsest grid: the instance norm of a single one does not exist.
        """
        padding: list[int] = []
        for size in reversed(images.shape[2:]):
            padding += [0, max(-(-size // self.stride), 2) * self.stride - size]
        padded = functional.pad(images, padding) if any(padding) else images
        return crop_to(self.unet(padded), images.shape[2:])
