"""What a pretraining run is to learn from: files, folders, patterns and lists, kept in little memory."""

from __future__ import annotations

import glob
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmae.datasets import Case, Dataset
from medmae.datasets.corpus_table import TextColumn, Values
from medmae.datasets.labels import dicom_code
from medmae.errors import BadInput
from medmae.volumes.discovery import all_named, expand
from medmae.volumes.reading import IMAGE_ENDINGS, image_ending

LIST_SIGN = "@"
PRETRAINING_LISTS = ("training", "unlabeled")


@dataclass(frozen=True)
class Source:
    """One image (of one or several channel files) to prepare.

    Attributes:
        id: unique among the sources; the path below the folder that all have in common.
        images: paths, one for each channel file; a folder is a DICOM series.
        series: which DICOM series of the folder, where it holds several.
        modality: what somebody says it is; "" when nobody does.
        subject: whom it shows.
    """

    id: str
    images: tuple[str, ...]
    series: str | None = None
    modality: str = ""
    subject: str = ""

    @property
    def name(self) -> str:
        """How it is called in lists for people; unique."""
        return self.images[0] if self.series is None else f"{self.images[0]} (series {self.series})"


class PathSources(Sequence[Source]):
    """Sources that are single paths: some hundred bytes each, made into `Source` on demand."""

    def __init__(self) -> None:
        self._paths = TextColumn()
        self._modality = array("i")
        self._modalities = Values()
        self._series: dict[int, tuple[str, int]] = {}
        self._root: str | None = None

    def append(self, path: str, modality: str = "", series: str | None = None, part: int | None = None) -> None:
        """Add an absolute path; `part` numbers the series of one folder."""
        if series is not None:
            self._series[len(self)] = (series, part or 0)
        folder = os.path.dirname(path)  # noqa: PTH120 - a Path a file would take longer than all else here
        if self._root is None:
            self._root = folder
        elif not path.startswith(os.path.join(self._root, "")):  # noqa: PTH118
            try:
                self._root = os.path.commonpath([self._root, folder])
            except ValueError:  # several drives
                self._root = ""
        self._paths.append(path)
        self._modality.append(self._modalities.number_of(modality))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Source:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = self._paths[index]
        identifier = path[len(self._root or ""):].lstrip(os.sep).replace(os.sep, "/")
        series, part = self._series.get(index, (None, 0))
        return Source(identifier if series is None else f"{identifier}//series {part}", (path,), series,
                      self._modalities[self._modality[index]], identifier)

    def __iter__(self) -> Iterator[Source]:
        return (self[index] for index in range(len(self)))


def sources_of_images(patterns: Sequence[str]) -> PathSources:
    """What ``--images`` names: files, folders, glob patterns, and ``@list.txt`` with one of these a line.

    In a list, blank lines and lines that begin with # count nothing, paths are relative to the list, and a modality
    may stand behind a path after a tab. What a list or a folder holds need not be usable nor there: what cannot be read
    is found, told and left out when the images are prepared.

    Raises:
        BadInput: a path or list on the command line does not exist, or a folder or pattern there has no image; all are
            listed.
    """
    found = PathSources()
    seen: set[bytes] | None = set() if len(patterns) > 1 or patterns[:1] and _is_list(patterns[0]) else None
    for path, modality in all_named(patterns, _named):
        if seen is None or _is_new(path, seen):
            found.append(path, modality)
    if not found:
        raise BadInput(f"{', '.join(str(pattern)[len(LIST_SIGN):] for pattern in patterns)} names no images. "
                       "Write one path a line into it.")
    return found


def pretraining_cases(dataset: Dataset, split: str | None = None) -> list[Case]:
    """The cases of a dataset to learn from: those of the list `split`, or of the usual ones.

    Raises:
        BadInput: there are none.
    """
    keys = [split] if split else [key for key in PRETRAINING_LISTS if dataset.lists.get(key)]
    cases = list({case.id: case for key in keys for case in dataset.cases(key)}.values())
    if not cases:
        raise BadInput(f"The dataset {dataset.path} has no images in {' or '.join(PRETRAINING_LISTS)}.")
    return cases


def sources_of_cases(cases: Sequence[Case]) -> list[Source]:
    """The images of a dataset's cases, without their labels."""
    return [Source(case.id, tuple(map(str, case.images)), None, case.modality, case.subject) for case in cases]


def absolute_pattern(pattern: str) -> str:
    """A pattern as it must stand in a run folder, which may be continued from elsewhere."""
    if _is_list(pattern):
        return LIST_SIGN + str(Path(pattern[1:]).expanduser().absolute())
    return str(Path(pattern).expanduser().absolute())


def _is_list(pattern: str) -> bool:
    return pattern.startswith(LIST_SIGN) and not os.path.exists(pattern)  # noqa: PTH110


def _is_new(path: str, seen: set[bytes]) -> bool:
    import hashlib

    key = hashlib.blake2b(os.fsencode(path), digest_size=16).digest()
    before = len(seen)
    seen.add(key)
    return len(seen) > before


def _named(pattern: str) -> Iterator[tuple[str, str]]:
    """(absolute path, modality) of everything that one argument names."""
    if _is_list(pattern):
        yield from _listed(Path(pattern[1:]))
    elif os.path.isfile(pattern):  # noqa: PTH113 - an empty file is a bad image among others, not a mistyped path
        yield os.path.abspath(pattern), ""  # noqa: PTH100 - keeps symbolic links, as everywhere
    else:
        for path in expand(pattern):
            yield os.path.abspath(path), ""  # noqa: PTH100


def _listed(file: Path) -> Iterator[tuple[str, str]]:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            for line in stream:
                text, _, modality = line.rstrip("\r\n").partition("\t")
                if not text.strip() or text.startswith("#"):
                    continue
                path = os.path.normpath(os.path.join(file.parent, os.path.expanduser(text.strip())))  # noqa: PTH111,PTH118
                code = dicom_code(modality) if modality.strip() else ""
                yield from ((one, code) for one in _of_entry(path))
    except FileNotFoundError:
        raise BadInput(f"The list of images {file} does not exist. Check the path after '{LIST_SIGN}'.") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise BadInput(f"The list of images {file} is not a text file (UTF-8) with one path a line. "
                       f"Name images and folders without '{LIST_SIGN}'.") from None
    except PermissionError:
        raise BadInput(f"The list of images {file} may not be read. Check its permissions.") from None


def _of_entry(path: str) -> Iterator[str]:
    """What a line of a list names; a path of which nothing comes stands for itself, so that preparing it says why."""
    is_image = image_ending(Path(path)) in IMAGE_ENDINGS and not glob.has_magic(path)
    if is_image or os.path.isfile(path):  # noqa: PTH113
        yield path
        return
    found = iter(expand(path))
    try:
        first = next(found)
    except BadInput:
        yield path
        return
    yield from (os.path.abspath(one) for one in (first, *found))  # noqa: PTH100
