"""Write small models with random weights: ``python make_scripting_models.py FOLDER``: "abdomen", "two channels" and
"which organ" (a classification), as the examples of docs/scripting.md name them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

import torch  # noqa: E402
from inference_helpers import description  # noqa: E402
from worker_helpers import TINY  # noqa: E402

from medmae.models import save_model  # noqa: E402
from medmae.networks import architecture_for, build_network  # noqa: E402

RANGES = {"spacing_mm": [[2.5, 0.8, 0.6], [3.5, 1.0, 0.8]], "shape": [[4, 4, 4], [200, 512, 512]],
          "percentiles": [{"0.5": [-400.0, -100.0], "50": [-20.0, 20.0], "99.5": [100.0, 400.0]}]}


def write(folder: Path, name: str, task: str = "segmentation", channels: int = 1) -> None:
    torch.manual_seed(1)
    architecture = architecture_for("gl-mae", "tiny", task, channels, classes=3)
    keys = TINY if task == "segmentation" else {"patch": 8, "width": 24, "depth": 2, "heads": 2}
    architecture["arguments"] |= keys
    names = ["background", "liver", "left kidney"] if task == "segmentation" else ["liver", "kidney", "spleen"]
    info = description(task, values=(0, 1, 5), names=names, size=[16, 16, 16], architecture=architecture,
                       intensity={"kind": "robust"}, channels=channels)
    info = dataclasses.replace(info, name=name, modality="MR", training={"cases": 4, "ranges": RANGES})
    save_model(folder / name, info, build_network(architecture))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write(out, "abdomen")
    write(out, "two channels", channels=2)
    write(out, "which organ", task="classification")
