"""Draw the picture of the README from a finished demonstration: ``python docs/images/first_screen.py demo``."""

from __future__ import annotations

import sys
from pathlib import Path

from medmae.datasets import load_dataset
from medmae.models import load_info
from medmae.reports.cases import compared_prediction, label_colors
from medmae.reports.pictures import overlays

CASE = 0  # of the test list


def main(demo: Path) -> None:
    """Write first-screen.png beside this file: reference (filled) and prediction (line) of a held-out CT case."""
    case = load_dataset(demo / "data/abdomen_ct/dataset.json").cases("test")[CASE]
    info = load_info(demo / "runs/ct-pretrained")
    shown = compared_prediction(case, demo / "predictions/ct-pretrained" / f"{case.id}.nii.gz", info.modality, "")
    Path(__file__).with_name("first-screen.png").write_bytes(overlays([shown], label_colors(info)).png)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
