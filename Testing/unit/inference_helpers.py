"""Models whose answer is known beforehand, for the tests of inference."""

from __future__ import annotations

import torch
from torch import nn

from medmae.inference.loaded_model import LoadedModel
from medmae.models import ModelInfo

COLOURS = [[0.0, 0.0, 0.0], [0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8]]


class Bands(nn.Module):
    """Class c where the intensity is nearest to c / (classes - 1): a rule that any grid can check."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(0, 1, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        centres = self.centres.view(1, -1, *[1] * (images.ndim - 2))
        return -((images[:, :1] - centres) ** 2)


class MeanLevel(nn.Module):
    """Classifies by the mean intensity: logits (-10 m, 10 m) for m = mean - 0.5."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = 10 * (images.flatten(1).mean(1) - 0.5)
        return torch.stack([-level, level], 1)


def description(task="segmentation", dims=3, *, size=None, spacing=None, values=(0, 1, 2), names=None, channels=1,
                intensity=None, architecture=None):
    names = names or ["background", "rim", "core", "more"][:len(values)]
    labels = [{"name": name, "value": value, "color": colour, "terminology": None}
              for name, value, colour in zip(names, values, COLOURS, strict=False)]
    return ModelInfo(
        name="test", task=task, method="gl-mae" if dims == 3 else "vis-mae", preset="tiny", spatial_dims=dims,
        architecture=architecture or {"name": "none", "arguments": {"channels": channels, "classes": len(labels)}},
        channels=[{"name": f"channel {number}", "modality": "MR"} for number in range(channels)], labels=labels,
        orientation="RAS" if dims == 3 else "LPS", spacing_mm=spacing, input_size=size or [8] * dims,
        intensity=intensity or {"kind": "none"})


def segmentation_model(network=None, **kwargs):
    return LoadedModel.of(description(**kwargs), network or Bands(len(kwargs.get("values", (0, 1, 2)))))
