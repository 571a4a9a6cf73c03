"""A segmentation model that loads and computes in milliseconds, with random weights: to test what surrounds models.

``python -m medmae.demo.tiny_model FOLDER``
"""

from __future__ import annotations

import sys
from pathlib import Path

SIZE = {"patch": 8, "width": 24, "depth": 3, "heads": 2, "skip_blocks": [1, 2], "feature_size": 8}
LABELS = {"background": 0, "first": 1, "second": 2}


def write_tiny_model(folder: Path) -> None:
    """Write the model; the same one every time.

    Raises:
        OSError: the folder cannot be written.
    """
    import torch

    from medmae.datasets.preprocessing import Preprocessing
    from medmae.models import ModelInfo, save_model
    from medmae.models.labels import model_labels
    from medmae.networks import architecture_for, build_network
    from medmae.volumes import default_intensity

    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, classes=len(LABELS))
    architecture["arguments"] |= SIZE
    preprocessing = Preprocessing(spatial_dims=3, orientation="RAS", spacing_mm=None, input_size=(16, 16, 16),
                                  channels=1, context=0, intensity=(default_intensity("MR"),))
    torch.manual_seed(1)
    save_model(folder, ModelInfo(
        name="tiny", task="segmentation", method="gl-mae", preset="tiny", architecture=architecture, modality="MR",
        channels=[{"name": "MR", "modality": "MR"}], labels=model_labels(LABELS), **preprocessing.model_fields(),
    ), build_network(architecture))


if __name__ == "__main__":
    write_tiny_model(Path(sys.argv[1]))
