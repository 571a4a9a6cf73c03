"""Random variation of training views: geometry for image and label together, intensity for the image alone."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from medmae.finetuning.config import USUAL_ROTATION, USUAL_SCALE, AugmentationConfig
from medmae.training.views import rotation_matrix


def random_matrix(config: AugmentationConfig, dims: int, generator: np.random.Generator) -> np.ndarray:
    """A random rotation, scale and flips as the (dims, dims) matrix of `cut_view`."""
    limit = np.deg2rad(USUAL_ROTATION if config.rotation_degrees is None else config.rotation_degrees)
    angles = generator.uniform(-limit, limit, 1 if dims == 2 else 3)
    scale = np.exp(generator.uniform(*np.log(config.scale or USUAL_SCALE)))
    flips = np.ones(dims)
    for axis in config.flip_axes or ():
        flips[axis] = -1.0 if generator.random() < 0.5 else 1.0
    return rotation_matrix(angles) @ np.diag(scale * flips)


def vary_intensity(image: torch.Tensor, config: AugmentationConfig, generator: np.random.Generator) -> torch.Tensor:
    """Contrast, brightness, gamma, noise and blur, each with its own chance; image (C, *spatial) roughly in [0, 1]."""
    image = image * float(generator.uniform(1 - config.contrast, 1 + config.contrast))
    image = image + float(generator.uniform(-config.brightness, config.brightness))
    if generator.random() < 0.5:
        gamma = float(np.exp(generator.uniform(*np.log(config.gamma))))
        image = image.sign() * image.abs().clamp_min(1e-6) ** gamma
    if config.blur > 0 and generator.random() < config.blur:
        image = _smooth(image)
    if config.noise > 0 and generator.random() < 0.3:
        noise = generator.standard_normal(tuple(image.shape), dtype=np.float32)
        image = image + torch.from_numpy(noise) * float(generator.uniform(0, config.noise))
    return image


def _smooth(image: torch.Tensor) -> torch.Tensor:
    """A binomial filter of three voxels along every axis."""
    pool = F.avg_pool3d if image.ndim == 4 else F.avg_pool2d
    for _ in range(2):
        image = pool(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return image
