"""Checking every file of a dataset before a long run starts, with one message that lists all problems."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medmae.datasets.dataset import Case, Dataset
from medmae.datasets.problems import raise_problems
from medmae.datasets.summary import PERCENTILES, CaseSummary, DatasetSummary
from medmae.errors import BadInput

if TYPE_CHECKING:
    from medmae.volumes import Volume

GRID_TOLERANCE_MM = 1e-3
PERCENTILE_VOXELS = 1_000_000
REMEDY = "Repair or replace these files, or take their cases out of the dataset file."
Progress = Callable[[int, int], None]


def validate(dataset: Dataset, keys: Sequence[str], *, read_voxels: bool = True, labels: bool | None = None,
             on_progress: Progress | None = None) -> DatasetSummary:
    """Check all cases of the lists `keys`, each once: see ``validate_cases``; each list is asked for labels by itself.

    Raises:
        BadInput: there is no such list, or some files cannot be used; the message lists all problems.
    """
    cases: dict[str, Case] = {}
    for key in keys:
        for case in dataset.cases(key):
            if case.id not in cases or case.is_labelled:
                cases[case.id] = case
    needing = set().union(*(_needing_label(dataset.cases(key), labels) for key in keys))
    check = _Check(dataset, labels is not False, frozenset(needing), read_voxels)
    return _run(check, tuple(cases.values()), on_progress)


def validate_cases(dataset: Dataset, cases: Sequence[Case], *, read_voxels: bool = True, labels: bool | None = None,
                   on_progress: Progress | None = None) -> DatasetSummary:
    """Check the files of `cases` and measure what they hold.

    Every image can be read, is one volume or picture with a usable geometry and holds finite values; the files of a
    case have one grid, its label map has the same (to 1e-3 mm) and only values of the label map; the number of channels
    is the same everywhere and as declared.

    Args:
        dataset: says which labels and channels there are.
        cases: the cases to check.
        read_voxels: False looks only whether the files are there and not empty.
        labels: True asks for a label of every case; False leaves labels aside; None checks those that are given, and
            asks for all when there are any.
        on_progress: called with (cases done, all cases).

    Raises:
        BadInput: some files cannot be used; the message lists all problems.
    """
    check = _Check(dataset, labels is not False, frozenset(_needing_label(cases, labels)), read_voxels)
    return _run(check, cases, on_progress)


def _needing_label(cases: Sequence[Case], labels: bool | None) -> set[str]:
    required = any(case.is_labelled for case in cases) if labels is None else labels
    return {case.id for case in cases} if required else set()


def _run(check: _Check, cases: Sequence[Case], on_progress: Progress | None) -> DatasetSummary:
    problems: list[str] = [] if cases else ["there is no case in it."]
    summaries: list[CaseSummary] = []
    # Threads, because other ways need an importable main program; few, because each holds a whole image.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for done, (found, summary) in enumerate(pool.map(check.case, cases), start=1):
            problems += found
            summaries += [summary] if summary else []
            if on_progress:
                on_progress(done, len(cases))
    problems += _channel_problems(check.dataset, summaries)
    raise_problems(problems, f"The dataset {check.dataset.path}", REMEDY)
    return DatasetSummary(tuple(summaries))


@dataclass(frozen=True)
class _Check:
    dataset: Dataset
    with_labels: bool
    needing_label: frozenset[str]
    read_voxels: bool

    def case(self, case: Case) -> tuple[list[str], CaseSummary | None]:
        """The problems of a case and, when it has none, its summary."""
        problems: list[str] = []
        if case.id in self.needing_label and not case.is_labelled:
            problems.append(f"{case.id}: it has no label, but one is needed.")
        files = [*case.images, *([case.label] if self.with_labels and case.label else [])]
        if not self.read_voxels:
            return problems + [text for file in files if (text := _absent(file))], None
        images = [volume for path in case.images if (volume := _read(path, problems, is_label=False))]
        label = _read(case.label, problems, is_label=True) if self.with_labels and case.label else None
        if len(images) < len(case.images):
            return problems, None
        problems += _image_problems(images)
        counted: dict[str, int] = {}
        if label:
            problems += _grid_problems(label, images[0], f"the label {label.source}")
            counted = self._count(label, problems)
        return problems, None if problems else _summary(case.id, images, counted)

    def _count(self, label: Volume, problems: list[str]) -> dict[str, int]:
        values, counts = np.unique(label.array, return_counts=True)
        voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
        known = self.dataset.labels
        strange = {value: count for value, count in voxels.items() if value not in known.values()}
        if strange:
            shown = ", ".join(f"{value} ({count} voxels)" for value, count in list(strange.items())[:8])
            more = f" and {len(strange) - 8} more" if len(strange) > 8 else ""
            problems.append(f"The label {label.source} holds values that are not in 'labels': {shown}{more}. Known are "
                            f"{', '.join(f'{value} ({name})' for name, value in known.items())}.")
        return {name: int(voxels.get(value, 0)) for name, value in self.dataset.foreground.items()}


def _absent(path: Path) -> str | None:
    if not path.exists():
        return f"{path} does not exist."
    if path.is_file() and not path.stat().st_size:
        return f"{path} is empty (zero bytes)."
    if path.is_dir() and not any(path.iterdir()):
        return f"{path} is an empty folder."
    return None


def _read(path: Path, problems: list[str], *, is_label: bool) -> Volume | None:
    from medmae.volumes import read_image, read_label

    try:
        return read_label(path) if is_label else read_image(path)
    except BadInput as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path} cannot be read ({error.strerror or error}).")
    return None


def _image_problems(images: Sequence[Volume]) -> list[str]:
    problems = []
    for image in images:
        if np.issubdtype(image.array.dtype, np.floating) and not np.isfinite(image.array).any():
            problems.append(f"{image.source} holds no finite value.")
        problems += _grid_problems(image, images[0], image.source) if image is not images[0] else []
    return problems


def _grid_problems(one: Volume, image: Volume, name: str) -> list[str]:
    name = name[0].upper() + name[1:]
    if one.geometry.shape != image.geometry.shape:
        return [f"{name} has the size {_size(one)} voxels (i x j x k), its image {image.source} has {_size(image)}."]
    if not (one.spacing_known and image.spacing_known):
        return []  # pictures carry no millimetres that could differ
    if not one.geometry.is_close(image.geometry, GRID_TOLERANCE_MM):
        distance = one.geometry.largest_distance_mm(image.geometry)
        return [f"{name} lies on another grid than its image {image.source}: voxels are up to {distance:.3g} mm apart."]
    return []


def _size(volume: Volume) -> str:
    return " x ".join(map(str, reversed(volume.geometry.shape)))


def _summary(identifier: str, images: Sequence[Volume], counted: dict[str, int]) -> CaseSummary:
    first = images[0]
    geometry = first.geometry
    channels = [channel for image in images for channel in image.array]
    millilitres = {name: count * geometry.voxel_volume_ml for name, count in counted.items()}
    return CaseSummary(identifier, geometry.shape, geometry.spacing_mm, first.spacing_known, first.is_2d, geometry.axes,
                       len(channels), tuple(_percentiles(channel) for channel in channels), counted,
                       millilitres if first.spacing_known else {})


def _percentiles(channel: NDArray) -> tuple[float, float, float]:
    values = channel.reshape(-1)
    if values.size > PERCENTILE_VOXELS:
        values = values[::(values.size // PERCENTILE_VOXELS) | 1]  # an odd step visits rows and columns evenly
    low, middle, high = np.percentile(values[np.isfinite(values)].astype(np.float64), PERCENTILES)
    return float(low), float(middle), float(high)


def _channel_problems(dataset: Dataset, summaries: Sequence[CaseSummary]) -> list[str]:
    """A colour picture of one declared modality has three channels; other numbers must be as declared."""
    counts = Counter(summary.channels for summary in summaries)
    if not counts:
        return []
    usual = counts.most_common(1)[0][0]
    declared = len(dataset.modalities)
    problems = [f"{summary.id} has {summary.channels} channels, most others have {usual}."
                for summary in summaries if summary.channels != usual]
    if declared > 1 and usual != declared:
        problems.append(f"The images have {usual} channels, but {declared} are declared "
                        f"({', '.join(dataset.channel_names or dataset.modalities)}).")
    return problems
