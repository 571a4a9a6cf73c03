"""Finding the images that files, folders and glob patterns name."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from medmae.errors import BadInput
from medmae.volumes.dicom_series import is_dicom_file
from medmae.volumes.pictures import PICTURE_ENDINGS
from medmae.volumes.reading import IMAGE_ENDINGS, VOLUME_ENDINGS, image_ending, refuse_missing

Found = TypeVar("Found")
_NEVER_DICOM = frozenset((*PICTURE_ENDINGS, *VOLUME_ENDINGS))


@dataclass(frozen=True)
class FoundImage:
    """An image to work on.

    Attributes:
        path: file or DICOM folder, for `read_image`.
        output_name: its path as typed, without anchor, ".." and extension, with "/" between the parts; unique.
    """

    path: Path
    output_name: str


def find_images(patterns: Sequence[str | Path]) -> list[FoundImage]:
    """Find images in the order given, each once.

    Args:
        patterns: files; folders, searched with their subfolders, where a folder of DICOM slices counts as one image;
            and glob patterns ("**" reaches into subfolders). Hidden files and segmentations (.seg.nrrd) inside folders
            are passed over.

    Raises:
        BadInput: a path does not exist, a folder or pattern has no image, or nothing is given. All are listed at once.
    """
    unique: dict[Path, Path] = {}
    for path in dict.fromkeys(all_named(patterns, expand)):
        unique.setdefault(Path(os.path.realpath(path)), path)  # Path.resolve refuses links that lead in a circle
    return _named(list(unique.values()))


def all_named(patterns: Sequence[str | Path], expand_one: Callable[[str], Iterable[Found]]) -> Iterator[Found]:
    """What `expand_one` finds for every pattern, in order.

    Raises:
        BadInput: at the end, with everything that it refused; or nothing is given.
    """
    problems = []
    for pattern in patterns:
        try:
            yield from expand_one(str(pattern))
        except BadInput as error:
            problems.append(str(error))
    if not patterns:
        problems.append("No images were given. Name files, folders or patterns such as 'scans/*.nii.gz'.")
    if problems:
        raise BadInput("\n".join(problems))


def output_name(path: Path | str) -> str:
    """The path without its anchor, ".." parts and image extension: "/data/x/case_1.nii.gz" becomes "data/x/case_1"."""
    pure = PurePath(path)
    parts = [part for part in pure.parts if part not in (pure.anchor, "..", ".")]
    if not parts:
        parts = [Path(path).resolve().name or "image"]
    # A folder may have a dot in its name, and an unknown suffix may be part of the name: cut known endings only.
    ending = image_ending(Path(parts[-1]))
    if ending in IMAGE_ENDINGS and len(parts[-1]) > len(ending):
        parts[-1] = parts[-1][:-len(ending)]
    return "/".join(parts)


def _named(paths: list[Path]) -> list[FoundImage]:
    """Give each image its own output name: where two would share one, the extension stays, then a number is added."""
    plain = [output_name(path) for path in paths]
    counts = Counter(plain)
    taken: set[str] = set()
    found = []
    for path, name in zip(paths, plain, strict=True):
        if counts[name] > 1:
            name = f"{name}_{image_ending(path).lstrip('.').replace('.', '_')}" if image_ending(path) else name
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        found.append(FoundImage(path, candidate))
    return found


def expand(pattern: str) -> Iterator[Path]:
    """The images that one file, folder or glob pattern names, in a fixed order, one after the other.

    Raises:
        BadInput: it does not exist, or holds no image.
    """
    path = Path(pattern)
    if path.is_dir():
        yield from _at_least_one(_inside(path), f"The folder {path} contains no images. Give a folder with NIfTI, "
                                                "NRRD, MHA/MHD, DICOM, PNG, JPEG or TIFF files.")
    elif path.is_symlink():  # where it leads nowhere, reading it says so, as where it is found in a folder
        yield path
    elif path.exists() or not glob.has_magic(pattern):
        refuse_missing(path)
        yield path
    else:
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207 - keeps the text as typed
        images = (image for match in matches for image in (_inside(match) if match.is_dir() else _file(match)))
        yield from _at_least_one(images, f"No image matches the pattern {pattern}. Check the path and the extension.")


def _at_least_one(images: Iterator[Path], message: str) -> Iterator[Path]:
    first = next(images, None)
    if first is None:
        raise BadInput(message)
    yield first
    yield from images


def _inside(folder: Path, around: tuple[str, ...] = ()) -> Iterator[Path]:
    """Folders of a million pictures are usual: files are told apart by their endings, and opened only without one.

    A link to one of the folders `around` is not followed. A folder that may not be read stands for its images, so that
    whoever reads it is told why.
    """
    around = (*around, os.path.realpath(folder))
    if around[-1] in around[:-1]:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except PermissionError:
        yield folder
        return
    names = [name for name, is_folder in found if not is_folder]
    unsure = (name for name in names if image_ending(Path(name)) not in _NEVER_DICOM)
    if any(_is_dicom(folder / name) for name in unsure):
        yield folder
    for name, is_folder in found:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _inside(folder / name, around)
        elif (ending := image_ending(Path(name))) in IMAGE_ENDINGS and (
                ending in _NEVER_DICOM or not _is_dicom(folder / name)):
            yield from _file(folder / name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle or to where one may not look
        return False


def _is_dicom(path: Path) -> bool:
    try:
        return is_dicom_file(path)
    except PermissionError:
        return False


def _file(path: Path) -> Iterator[Path]:
    is_image = image_ending(path) in IMAGE_ENDINGS or _is_dicom(path)
    # A link to a file that is not there (data not fetched yet) is an image that cannot be read, not none.
    is_file = path.is_file() or (path.is_symlink() and not path.exists())
    if is_image and is_file and not path.name.lower().endswith(".seg.nrrd"):
        yield path
