"""Synthetic data sets on disk: CT-like volumes with organs, and X-ray-like pictures with a finding.

Few cases are labelled and many are not, as in practice, so that pretraining has something to give. Everything follows
from the seed: the same call writes the same voxels on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from medmae.demo import abdomen, chest
from medmae.files import atomic_path, write_json

DESCRIPTION = "Synthetic pictures drawn by a program for demonstration and tests. No patient is shown."
OnCase = Callable[[int, int], None]
"""Called with the number of cases written and their total."""


def write_abdomen_ct(folder: Path, seed: int = 0, *, training: int = 8, validation: int = 2, test: int = 6,
                     unlabeled: int = 20, organs: Collection[str] = tuple(abdomen.LABELS),
                     on_case: OnCase | None = None) -> Path:
    """Write CT-like volumes (.nii.gz) and their ``dataset.json``; return its path.

    All organs are in the images; the labels are those of `organs`, the others count as background. The subset ``n4`` of
    the training list holds its first four cases.
    """
    cases = _case_lists("ct", training, validation, test, unlabeled)
    labels = {name: value for name, value in abdomen.LABELS.items() if value == 0 or name in organs}

    def write(case: _Item) -> None:
        made = abdomen.make_ct(seed, case.index)
        _write_volume(folder / "images" / f"{case.id}.nii.gz", made.image, made.affine)
        if case.labelled:
            label = np.where(np.isin(made.label, list(labels.values())), made.label, 0).astype(np.uint8)
            _write_volume(folder / "labels" / f"{case.id}.nii.gz", label, made.affine)

    _write_all(cases, write, on_case)
    return _write_lists(folder / "dataset.json", "abdomen_ct_synthetic", "segmentation", "CT", labels,
                        {key: [_item(case, "nii.gz") for case in cases if case.list == key] for key in LISTS})


def write_chest_xray(folder: Path, seed: int = 0, *, training: int = 16, validation: int = 4, test: int = 24,
                     unlabeled: int = 48, on_case: OnCase | None = None) -> tuple[Path, Path]:
    """Write X-ray-like pictures (.png, 8 and 16 bit); return two data set files on the same pictures.

    The first is for the segmentation of lungs and heart, the second for the classification normal or opacity.
    """
    cases = _case_lists("xray", training, validation, test, unlabeled)
    findings: dict[str, int] = {}

    def write(case: _Item) -> None:
        made = chest.make_xray(seed, case.index)
        findings[case.id] = made.finding
        _write_picture(folder / "images" / f"{case.id}.png", made.image)
        if case.labelled:
            _write_picture(folder / "labels" / f"{case.id}.png", made.label)

    _write_all(cases, write, on_case)
    segmentation = {key: [_item(case, "png") for case in cases if case.list == key] for key in LISTS}
    classification = {key: [_item(case, "png", findings[case.id]) for case in cases if case.list == key]
                      for key in LISTS}
    return (_write_lists(folder / "dataset_segmentation.json", "chest_xray_synthetic", "segmentation", "DX",
                         chest.LABELS, segmentation),
            _write_lists(folder / "dataset_classification.json", "chest_xray_synthetic", "classification", "DX",
                         chest.CLASSES, classification))


LISTS = ("training", "validation", "test", "unlabeled")


class _Item:
    """One case to write: its number in the population and the list it belongs to."""

    def __init__(self, prefix: str, index: int, name: str) -> None:
        self.index, self.list = index, name
        self.id = f"{prefix}_{index:03d}"
        self.labelled = name != "unlabeled"


def _case_lists(prefix: str, *sizes: int) -> list[_Item]:
    names = [name for name, size in zip(LISTS, sizes, strict=True) for _ in range(size)]
    return [_Item(prefix, index, name) for index, name in enumerate(names)]


def _item(case: _Item, suffix: str, value: int | None = None) -> dict[str, Any] | str:
    image = f"images/{case.id}.{suffix}"
    if not case.labelled:
        return image
    return {"image": image, "label": f"labels/{case.id}.{suffix}" if value is None else value, "subject": case.id}


def _write_all(cases: Sequence[_Item], write: Callable[[_Item], None], on_case: OnCase | None) -> None:
    with ThreadPoolExecutor(2) as pool:
        done: Iterable[None] = pool.map(write, cases)
        for count, _ in enumerate(done, 1):
            if on_case:
                on_case(count, len(cases))


def _write_lists(path: Path, name: str, task: str, modality: str, labels: dict[str, int],
                 lists: dict[str, list[dict[str, Any] | str]]) -> Path:
    images = [item["image"] for item in lists["training"] if isinstance(item, dict)]
    subsets = {f"n{size}": images[:size] for size in (2, 4, 8, 16) if size <= len(images)}
    write_json(path, {"name": name, "description": DESCRIPTION, "licence": "CC0-1.0", "task": task,
                      "channel_names": {"0": modality}, "labels": labels, **lists, "subsets": subsets})
    return path


def _write_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (k, j, i) with its affine (i, j, k, 1) to RAS mm as NIfTI."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    to_lps = np.diag([-1.0, -1.0, 1.0])  # ITK's world is LPS
    columns = to_lps @ affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    _write(image, path)


def _write_picture(path: Path, array: np.ndarray) -> None:
    import SimpleITK as sitk

    _write(sitk.GetImageFromArray(array), path)


def _write(image: Any, path: Path) -> None:
    import SimpleITK as sitk

    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), True)
