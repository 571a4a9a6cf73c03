"""Make the sample data of the tutorial: ``python Resources/make_sample_data.py``.

Synthetic CT of the abdomen, the same on every computer: three annotated cases, and a fourth to segment. Prints the
checksums that `MedMAESegmentLib.SampleCases` lists.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from medmae.demo.abdomen import LABELS, CtCase, make_ct
from medmae.volumes.geometry import Geometry
from medmae.volumes.segments import default_segments
from medmae.volumes.writing import write_label

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import Qt  # noqa: E402
from PySide6.QtGui import QImage  # noqa: E402

RESOURCES = Path(__file__).resolve().parents[1] / "MedMAESegment" / "Resources"
SEED, ANNOTATED, NEW = 0, (1, 3, 5), 7
WIDTH, HEIGHT = 260, 280


def write_image(path: Path, case: CtCase) -> None:
    """Write a case as compressed .nrrd."""
    image = sitk.GetImageFromArray(case.image)
    spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
    lps = np.diag([-1.0, -1.0, 1.0])
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps @ case.affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((lps @ case.affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=9)


def write_thumbnail(path: Path, case: CtCase, *, annotated: bool) -> None:
    """Write the axial slice with the most labels, with their colours when it is annotated."""
    k = int(np.argmax((case.label > 0).sum(axis=(1, 2))))
    grey = np.clip((case.image[k].astype(float) + 160) / 400, 0, 1)[..., None] * np.ones(3)
    for segment in default_segments(LABELS) if annotated else ():
        inside = case.label[k] == segment.value
        grey[inside] = 0.4 * grey[inside] + 0.6 * np.array(segment.color)
    pixels = np.ascontiguousarray((grey * 255).astype(np.uint8))
    picture = QImage(pixels.data, pixels.shape[1], pixels.shape[0], pixels.shape[1] * 3, QImage.Format.Format_RGB888)
    scaled = picture.scaled(WIDTH, HEIGHT, Qt.AspectRatioMode.KeepAspectRatioByExpanding,
                            Qt.TransformationMode.SmoothTransformation)
    scaled.copy((scaled.width() - WIDTH) // 2, (scaled.height() - HEIGHT) // 2, WIDTH, HEIGHT).save(str(path))


def main() -> None:
    """Write everything and print the checksums."""
    folder = RESOURCES / "SampleData"
    folder.mkdir(exist_ok=True)
    for number, index in enumerate((*ANNOTATED, NEW), start=1):
        case = make_ct(SEED, index)
        write_image(folder / f"MedMAE-CT-{number}.nrrd", case)
        if index != NEW:
            write_label(folder / f"MedMAE-CT-{number}.seg.nrrd", case.label, Geometry(case.label.shape, case.affine),
                        default_segments(LABELS), "seg.nrrd")
    write_thumbnail(RESOURCES / "Icons" / "SampleAnnotatedCT.png", make_ct(SEED, ANNOTATED[0]), annotated=True)
    write_thumbnail(RESOURCES / "Icons" / "SampleNewCT.png", make_ct(SEED, NEW), annotated=False)
    for path in sorted(folder.iterdir()):
        print(f'    "{path.name}": "{hashlib.sha256(path.read_bytes()).hexdigest()}",')


if __name__ == "__main__":
    main()
