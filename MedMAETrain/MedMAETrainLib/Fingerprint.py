"""What the images of a project are like, read from their headers alone: sizes, spacings, pictures or volumes."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medmae.config import from_json, to_json
from medmae.datasets.summary import CaseSummary, DatasetSummary
from medmae.errors import BadInput
from medmae.files import write_json
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectFolder import ProjectFolder

CACHE_FILE = "headers.json"  # in the project's folder; may be deleted at any time
BYTES_A_VOXEL = 2  # CT and most MR; what travels is compressed on top of that
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says.

    shape, spacing_mm - (k, j, i), stored order; (0, 0, 0) for pictures.
    axes - Directions in which i, j, k increase.
    isPicture - A picture or radiograph rather than a volume.
    size - Bytes of the voxels, about.
    problem - Why nothing can be told; "" where all is well.
    """

    shape: tuple[int, int, int] = (0, 0, 0)
    spacing_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: str = "RAS"
    isPicture: bool = False
    size: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """The headers of some cases, by their ids."""

    headers: dict[str, ImageHeader] = field(default_factory=dict)

    @property
    def volumes(self) -> DatasetSummary:
        """The grids of all volumes that could be read, towards RAS."""
        return DatasetSummary(tuple(
            CaseSummary(case, header.shape, header.spacing_mm, axes=header.axes)
            for case, header in self.headers.items() if not header.problem and not header.isPicture)).towards("RAS")

    @property
    def isOfPictures(self) -> bool:
        """Whether most of the images are pictures."""
        pictures = sum(header.isPicture for header in self.headers.values())
        return 2 * pictures > len(self.headers)

    @property
    def problems(self) -> dict[str, str]:
        """Why cases cannot be read, by their ids."""
        return {case: header.problem for case, header in self.headers.items() if header.problem}

    def of(self, cases: Iterable[ProjectCase]) -> Fingerprint:
        """That of some of the cases."""
        ids = {case.id for case in cases}
        return Fingerprint({case: header for case, header in self.headers.items() if case in ids})

    def size(self, cases: Sequence[ProjectCase] | None = None) -> int:
        """Bytes of the voxels of cases (default: all), before compression."""
        found = self.headers if cases is None else self.of(cases).headers
        return sum(header.size for header in found.values())


def readFingerprint(project: ProjectFolder, isCancelled: threading.Event | None = None) -> Fingerprint:
    """Read the headers of all cases that are not in the cache of the project; for a thread.

    :param isCancelled: ends it early, with what is known by then.
    """
    cache = _Cache(project.path / CACHE_FILE)
    headers = {}
    for case in project.cases:
        if isCancelled is not None and isCancelled.is_set():
            break
        headers[case.id] = cache.header(project.file(case.image))
    cache.save()
    return Fingerprint(headers)


def readHeader(path: Path) -> ImageHeader:
    """Read the header of an image; what is wrong with it is told in `problem`."""
    from medmae.volumes.contents import read_geometry

    try:
        geometry = read_geometry(path)
        if geometry is None:
            return ImageHeader(isPicture=True, size=_fileSize(path))
    except (BadInput, OSError) as error:
        return ImageHeader(problem=str(error))
    k, j, i = geometry.shape
    return ImageHeader((k, j, i), geometry.spacing_mm, geometry.axes, size=k * j * i * BYTES_A_VOXEL)


class _Cache:
    """Headers by path, time and size of the file, so that one that was replaced is read again."""

    def __init__(self, file: Path) -> None:
        self._file, self._hasChanged = file, False
        self._known: dict[str, ImageHeader] = {}
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            self._known = {key: from_json(ImageHeader, value) for key, value in stored.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, BadInput) as error:  # costs no more than reading again
            _log.info("The headers in %s are read again: %s", file, error)

    def header(self, path: Path) -> ImageHeader:
        """The header of an image."""
        try:
            stamp = path.stat()
        except OSError as error:
            return ImageHeader(problem=f"{path}: {error.strerror}")
        key = f"{path}|{stamp.st_mtime_ns}|{stamp.st_size}"
        if key not in self._known:
            header = readHeader(path)
            if header.problem:  # it may be mended by the next time
                return header
            self._known[key], self._hasChanged = header, True
        return self._known[key]

    def save(self) -> None:
        """Keep what was read; a project that cannot be written to is read anew each time."""
        if not self._hasChanged:
            return
        try:
            write_json(self._file, {key: to_json(header) for key, header in self._known.items()})
        except OSError as error:
            _log.info("Headers are not kept in %s: %s", self._file, error)


def _fileSize(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else (path,)) if file.is_file())
