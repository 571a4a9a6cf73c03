"""MONAI's DynUNet, the stronger convolutional baseline beside the pretrained networks (3-D few-label segmentation)."""

from __future__ import annotations

from collections.abc import Sequence

from medmae.networks.padded_unet import PaddedUnet


class DynUnet(PaddedUnet):
    """MONAI's DynUNet: 3-wide kernels, residual blocks, instance norm, halved grids between the levels.

    MONAI is imported when one is built.

    Args:
        channels: channels of the image.
        classes: classes including background.
        spatial_dims: 2 or 3.
        widths: channels of every level, finest first.
    """

    def __init__(self, *, channels: int, classes: int, spatial_dims: int = 3,
                 widths: Sequence[int] = (24, 48, 96, 192)) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
        levels = len(widths)
        if levels < 3:
            raise ValueError("widths must name three levels at least")
        from monai.networks.nets import DynUNet

        super().__init__(
            DynUNet(spatial_dims=spatial_dims, in_channels=channels, out_channels=classes, filters=list(widths),
                    kernel_size=[3] * levels, strides=[1] + [2] * (levels - 1),
                    upsample_kernel_size=[2] * (levels - 1), norm_name="instance", res_block=True), levels)
