"""Small data sets on disk for tests of training: blobs in noise, two labels, made from a seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the usual name


def blob_volume(seed: int, shape: tuple[int, int, int] = (20, 24, 22)) -> tuple[np.ndarray, np.ndarray]:
    """An image (k, j, i) int16 with a bright and a dim ball in noise, and its label map uint8."""
    generator = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(length) for length in shape], indexing="ij"), -1)
    labels = np.zeros(shape, np.uint8)
    for value, fraction in ((1, 0.3), (2, 0.7)):
        centre = np.array(shape) * fraction + generator.uniform(-1, 1, 3)
        labels[np.linalg.norm(places - centre, axis=-1) < 4.5] = value
    image = np.array([100, 400, 800])[labels] + generator.normal(0, 30, shape)
    return image.astype(np.int16), labels


def write_volumes(folder: Path, counts: dict[str, int]) -> Path:
    """A segmentation data set with `counts` cases a list; returns its dataset.json."""
    lists: dict[str, list[dict[str, str]]] = {}
    number = 0
    for key, count in counts.items():
        lists[key] = []
        for _ in range(count):
            image, labels = blob_volume(number)
            item = {"image": f"case{number}.nii.gz", "subject": f"s{number}"}
            sitk.WriteImage(sitk.GetImageFromArray(image), str(folder / item["image"]))
            if key != "unlabeled":
                item["label"] = f"label{number}.nii.gz"
                sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / item["label"]))
            lists[key].append(item)
            number += 1
    return _write(folder, {"labels": {"background": 0, "bright": 2, "dim": 1}, "modality": {"0": "MR"}, **lists})


def write_pictures(folder: Path, counts: dict[str, int]) -> Path:
    """A classification data set of 40 x 32 pictures: a bright square above (class up) or below (down)."""
    lists: dict[str, list[dict[str, object]]] = {}
    number = 0
    for key, count in counts.items():
        lists[key] = []
        for _ in range(count):
            generator = np.random.default_rng(number)
            picture = generator.normal(60, 10, (40, 32))
            row = 6 if number % 2 else 26
            picture[row:row + 8, 12:20] += 120
            name = f"picture{number}.png"
            sitk.WriteImage(sitk.GetImageFromArray(picture.clip(0, 255).astype(np.uint8)), str(folder / name))
            lists[key].append({"image": name, "label": number % 2, "subject": f"s{number}"})
            number += 1
    return _write(folder, {"task": "classification", "labels": {"down": 0, "up": 1}, "modality": {"0": "DX"}, **lists})


def _write(folder: Path, data: dict[str, object]) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps({"name": "tiny", **data}))
    return path
