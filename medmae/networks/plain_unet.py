"""A plain convolutional U-Net, the from-scratch baseline beside the pretrained networks."""

from __future__ import annotations

from collections.abc import Sequence

from medmae.networks.padded_unet import PaddedUnet


class PlainUnet(PaddedUnet):
    """MONAI's U-Net: `widths` channels a level, halved grids between them, residual units, instance norm, PReLU.

    MONAI is imported when one is built.

    Args:
        channels: channels of the image.
        classes: classes including background.
        spatial_dims: 2 or 3.
        widths: channels of every level, finest first.
        residual_units: convolutions of the residual unit of every level.
    """

    def __init__(self, *, channels: int, classes: int, spatial_dims: int = 2,
                 widths: Sequence[int] = (16, 32, 64, 128, 256), residual_units: int = 2) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, not {spatial_dims}")
        if len(widths) < 2:
            raise ValueError("widths must name two levels at least")
        from monai.networks.nets import UNet

        super().__init__(
            UNet(spatial_dims=spatial_dims, in_channels=channels, out_channels=classes, channels=list(widths),
                 strides=[2] * (len(widths) - 1), num_res_units=residual_units, norm="INSTANCE"), len(widths))
