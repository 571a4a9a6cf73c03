"""MONAI's DynUNet, the stronger convolutional baseline beside the pretrained networks (3-D few-label segmentation)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from medmae.networks.layers import crop_to


class DynUnet(nn.Module):
    """MONAI's DynUNet: 3-wide kernels, residual blocks, instance norm, halved grids between the levels.

    It has no encoder of ours, so that nothing pretrained can be carried into it. MONAI is imported when one is built.

    Args:
        channels: channels of the image.
        classes: classes including background.
        spatial_dims: 2 or 3.
        widths: channels of every level, finest first.
    """

    def __init__(self, *, channels: int, classes: int, spatial_dims: int = 3,
                 widths: Sequence[int] = (24, 48, 96, 192)) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
        if len(widths) < 3:
            raise ValueError("widths must name three levels at least")
        from monai.networks.nets import DynUNet

        self.stride = 2 ** (len(widths) - 1)
        self.unet = DynUNet(
            spatial_dims=spatial_dims, in_channels=channels, out_channels=classes, filters=list(widths),
            kernel_size=[3] * len(widths), strides=[1] + [2] * (len(widths) - 1),
            upsample_kernel_size=[2] * (len(widths) - 1), norm_name="instance", res_block=True)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, *spatial) of any size to logits (B, classes, *spatial); padded inside to the stride.

        At least two voxels a side are left on the coarsest grid: the instance norm of a single one does not exist.
        """
        padding: list[int] = []
        for size in reversed(images.shape[2:]):
            padding += [0, max(-(-size // self.stride), 2) * self.stride - size]
        padded = functional.pad(images, padding) if any(padding) else images
        return crop_to(self.unet(padded), images.shape[2:])
