"""Swin-Unet, VIS-MAE's segmentation network (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medmae.networks.layers import crop_to, initialise, pad_to_multiple
from medmae.networks.swin import PatchExpanding
from medmae.networks.swin_encoder import SwinDecoder, SwinEncoder


class SwinUnet(nn.Module):
    """Swin encoder, mirrored decoder with skips, expanding to pixels, and a 1x1 convolution without bias.

    The official code builds it with depths (2, 2, 6, 2), of which only 64 % can come from a pretrained (2, 2, 2, 2)
    encoder; MedMAE's presets keep the pretrained depths, so that nothing but skips and head is new.

    Args:
        channels: channels of the image.
        classes: classes including background.
        patch, width, depths, heads, window, drop_path, masked_padding: see `SwinEncoder`.
    """

    takes_any_window = True  # it has no absolute positions

    def __init__(self, *, channels: int, classes: int, patch: int = 4, width: int = 96,
                 depths: Sequence[int] = (2, 2, 2, 2), heads: Sequence[int] = (3, 6, 12, 24), window: int = 7,
                 drop_path: float = 0.1, masked_padding: bool = True) -> None:
        super().__init__()
        self.encoder = SwinEncoder(channels=channels, patch=patch, width=width, depths=depths, heads=heads,
                                   window=window, drop_path=drop_path, masked_padding=masked_padding)
        self.decoder = SwinDecoder(self.encoder, skips=True)
        self.final_expand = PatchExpanding(width=width, width_out=width, factor=patch)
        self.head = nn.Conv2d(width, classes, kernel_size=1, bias=False)
        self.apply(initialise)

    def voxel_features(self, images: Tensor) -> Tensor:
        """What the head sees: images (B, C, H, W) of any size to (B, width, H, W)."""
        padded = pad_to_multiple(images, self.encoder.stride)
        inputs, outputs = self.encoder(self.encoder.embed(padded))
        pixels = self.final_expand(self.decoder(outputs[-1], inputs))
        return crop_to(pixels.permute(0, 3, 1, 2), images.shape[2:])

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) of any size to logits (B, classes, H, W); padded inside to the encoder's stride."""
        return self.head(self.voxel_features(images))
