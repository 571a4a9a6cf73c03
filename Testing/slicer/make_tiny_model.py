"""Write a small model with random weights: ``python make_tiny_model.py FOLDER gl-mae|vis-mae [CONTEXT]``."""

from __future__ import annotations

import sys

import torch

from medmae.datasets.preprocessing import Preprocessing
from medmae.models import ModelInfo, save_model
from medmae.models.labels import model_labels
from medmae.networks import architecture_for, build_network
from medmae.networks.presets import preset
from medmae.volumes import default_intensity


def main() -> None:
    folder, method = sys.argv[1:3]
    context = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    numbers = preset(method, "tiny")
    is_3d = numbers.spatial_dims == 3
    architecture = architecture_for(method, "tiny", "segmentation", 2 * context + 1, 3)
    preprocessing = Preprocessing(
        spatial_dims=numbers.spatial_dims, orientation="RAS" if is_3d else "LPS",
        spacing_mm=(3.0, 1.0, 1.0) if is_3d else None, input_size=tuple(numbers.input_size), channels=1,
        context=context, intensity=(default_intensity("CT"),))
    torch.manual_seed(3)
    save_model(folder, ModelInfo(
        name="random", task="segmentation", method=method, preset="tiny", architecture=architecture,
        channels=[{"name": "CT", "modality": "CT"}] * preprocessing.network_channels, modality="CT",
        labels=model_labels({"background": 0, "liver": 1, "left kidney": 5}), **preprocessing.model_fields(),
    ), build_network(architecture))


if __name__ == "__main__":
    main()
