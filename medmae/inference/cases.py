"""The cases that a run works on: which images, what their results are called, how large they are."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmae.datasets import Case, Dataset
from medmae.errors import BadInput
from medmae.inference.manifest import MANIFEST
from medmae.volumes import find_images
from medmae.volumes.contents import read_geometry

MOST_LOOKED_INTO = 500  # headers; of more cases the mean is taken
VOXELS_OF_A_SLICE = 2**18  # of a DICOM file that nobody opened yet


@dataclass(frozen=True)
class FoundCase:
    """Images of one case (one a channel) and the name of its output, without extension."""

    images: tuple[Path, ...]
    output_name: str

    def stamp(self) -> list[list[int]]:
        """Size and time of change of each image, in whole numbers; of a folder, the number of files and the newest.

        Nothing for an image that is not there.
        """
        return [_stamp(path) for path in self.images]


def find_cases(images: Sequence[str | Sequence[str]], out: Path | None = None) -> list[FoundCase]:
    """Cases of the images named: patterns give one case a file, a list within the list one multi-channel case.

    Args:
        images: as typed.
        out: the folder of the results; what it holds from an earlier run is no image, nor what another folder of
            results holds that lies in one of `images`.

    Raises:
        BadInput: nothing is found, an element of a multi-channel case is not exactly one image, or two cases would have
            the same output.
    """
    cases: list[FoundCase] = []
    single = [str(entry) for entry in images if isinstance(entry, (str, Path))]
    is_result = _ResultsWithin(map(Path, single))
    if single or not images:
        cases += [FoundCase((found.path,), found.output_name) for found in find_images(single)
                  if out is None or not (_is_inside(found.path, out) or is_result(found.path))]
        if not cases:
            raise BadInput(f"All images found lie in {out}, where the results go. Choose another --out.")
    for entry in images:
        if isinstance(entry, (str, Path)):
            continue
        channels = [find_images([channel]) for channel in entry]
        if any(len(found) != 1 for found in channels):
            raise BadInput("Each channel of a multi-channel case must be one image, which does not hold for "
                           f"{', '.join(map(str, entry))}.")
        cases.append(FoundCase(tuple(found[0].path for found in channels), channels[0][0].output_name))
    twice = [name for name, count in Counter(case.output_name for case in cases).items() if count > 1]
    if twice:
        raise BadInput(f"Several cases would be written to {', '.join(twice)}. Segment them in runs of their own.")
    return cases


class _ResultsWithin:
    """Tells whether an image was found in a folder of results within a folder that was named."""

    def __init__(self, named: Iterable[Path]) -> None:
        self._named = set(named)
        self._known: dict[Path, bool] = {}

    def __call__(self, path: Path) -> bool:
        if path in self._named:
            return False
        folders = list(itertools.takewhile(lambda folder: folder not in self._named, path.parents))
        return len(folders) < len(path.parents) and any(map(self._holds_results, folders))

    def _holds_results(self, folder: Path) -> bool:
        if folder not in self._known:
            self._known[folder] = (folder / MANIFEST).is_file()
        return self._known[folder]


def sizes_of(cases: Sequence[FoundCase]) -> list[float]:
    """About how many voxels each case has, from the headers of its first images; for telling the time that is left.

    Whatever cannot be told counts as the mean of the others: reading it will say what is wrong.
    """
    known = [_voxels(case.images[0]) for case in cases[:MOST_LOOKED_INTO]]
    told = [voxels for voxels in known if voxels]
    mean = sum(told) / len(told) if told else 1.0
    return [voxels or mean for voxels in known] + [mean] * (len(cases) - len(known))


def image_name(dataset: Dataset, case: Case) -> str:
    """What a case is called in the results: its (first) image, relative to the dataset file where it lies below it."""
    folder = dataset.path.parent
    image = case.images[0]
    return image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)


def _voxels(path: Path) -> float:
    """0 where it is not known."""
    try:
        if path.is_dir():
            return float(VOXELS_OF_A_SLICE * sum(1 for _ in path.iterdir()))
        geometry = read_geometry(path)
    except (BadInput, OSError):
        return 0.0
    if geometry is None:
        return 0.0
    k, j, i = geometry.shape
    return float(k * j * i)


def _is_inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _stamp(path: Path) -> list[int]:
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                times = [entry.stat().st_mtime_ns for entry in entries if entry.is_file()]
            return [len(times), max(times, default=0)]
        status = path.stat()
        return [status.st_size, status.st_mtime_ns]
    except OSError:
        return []
