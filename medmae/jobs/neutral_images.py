"""Images re-written so that nothing but voxels and geometry is left, and the place here where such files wait.

A file that travelled is removed, and remembered by its hash: an image that has not changed is not converted again, and
where the disk is too small for all of them at once, they are converted a second time when their turn comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmae.datasets.ordered_pool import OrderedPool, usable_cores
from medmae.errors import BadInput
from medmae.files import PARTIAL, sha256_of
from medmae.home import home
from medmae.jobs.upload import Blob, Report
from medmae.volumes import Volume, read_image
from medmae.volumes.neutral_nrrd import UnlikeFrames, write_neutral

SUFFIX = ".nrrd"
VERSION = 1  # of what converting gives; another one forgets what was converted before
KEPT_FREE_BYTES = 2**31  # of the disk: beyond that, files are not kept until they travel
FORGOTTEN_AFTER_SECONDS = 7 * 86400.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Wanted:
    """An image as `read_image` is asked for it.

    Attributes:
        path, series, frame: as for `read_image`.
        at_most: of a file with several images take so many, evenly spread, and of a DICOM folder every series, as
            pretraining does; None: the image itself.
    """

    path: str
    series: str | None = None
    frame: int | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class Part:
    """What came of an image: a blob, or why it cannot be used. `name` is how people call it."""

    name: str
    blob: Blob | None = None
    problem: str = ""


class Staging(Mapping[str, Path]):
    """Files that wait to travel, by their hash. Asking for one that is not there any more makes it again."""

    def __init__(self) -> None:
        self.folder = home() / "uploads"
        self.files = self.folder / "staged"
        self.files.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.files):
            folder.chmod(0o700)
        self._journal = self.folder / "converted.jsonl"
        self._known: dict[str, list[list[Any]]] = dict(self._read())
        self._paths: dict[str, Path] = {}
        self._wanted: dict[str, Wanted] = {}
        self._remove_old()

    def __getitem__(self, sha256: str) -> Path:
        if sha256 in self._paths:
            return self._paths[sha256]
        wanted, path = self._wanted[sha256], staged(self.files, sha256)
        if not path.is_file() and sha256 not in {
                part[1] for part in neutral_parts((str(self.files), 0), _fields(wanted))}:
            raise BadInput(f"{wanted.path} changed after it was looked at. Submit the job again.")
        if not path.is_file():
            raise BadInput(f"There is not enough room in {self.files} for {wanted.path}. Make room on this computer, "
                           "or set MEDMAE_HOME to a larger disk.")
        return path

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self._paths, self._wanted)

    def __len__(self) -> int:
        return len(self._paths) + len(self._wanted)

    def release(self, sha256: str) -> None:
        """The file has travelled; what was made for it is removed."""
        staged(self.files, sha256).unlink(missing_ok=True)

    def add_file(self, path: Path) -> Blob:
        """A file that travels as it is."""
        key = _key("file", str(path.absolute()), _stamp(path))
        if key not in self._known:
            self._note(key, [["", sha256_of(path), path.stat().st_size]])
        _, sha256, size = self._known[key][0]
        self._paths[sha256] = path
        return Blob(sha256, _suffix_of(path), size)

    def add_bytes(self, data: bytes, suffix: str) -> Blob:
        """A small file that is made for the journey."""
        return self.add_made(lambda path: path.write_bytes(data), suffix)

    def add_made(self, write: Callable[[Path], Any], suffix: str) -> Blob:
        """A file that `write` makes for the journey."""
        temporary = self.files / f"{PARTIAL}{secrets.token_hex(8)}"
        write(temporary)
        sha256 = sha256_of(temporary)
        path = self._paths[sha256] = staged(self.files, sha256)
        temporary.replace(path)
        return Blob(sha256, suffix, path.stat().st_size)

    def convert(self, images: Sequence[Wanted], report: Report) -> Iterator[list[Part]]:
        """The neutral files of `images`, in their order; `report` takes ("convert", images done, images in all)."""
        keys = [_key(_fields(image), _stamp(Path(image.path))) for image in images]
        new = [number for number, key in enumerate(keys) if key not in self._known]
        pool: OrderedPool[dict[str, Any]] = OrderedPool(__name__, "neutral_parts",
                                                        (str(self.files), KEPT_FREE_BYTES), usable_cores())
        results = pool.run((_fields(images[number]) for number in new), len(new), lambda: False)
        report("convert", 0, len(images))
        for number, (image, key) in enumerate(zip(images, keys, strict=True), start=1):
            if key not in self._known:
                result = next(results)
                if result.problem is not None:
                    yield [Part(image.path, problem=result.problem)]
                    continue
                self._note(key, result.value)
            yield [self._part(image, *each) for each in self._known[key]]
            report("convert", number, len(images))

    def _part(self, image: Wanted, name: str, sha256: str, size: int) -> Part:
        if not sha256:
            return Part(name, problem=str(size))
        self._wanted[sha256] = image
        return Part(name, Blob(sha256, SUFFIX, size))

    def _note(self, key: str, parts: list[list[Any]]) -> None:
        self._known[key] = parts
        if all(sha256 for _, sha256, _ in parts):  # what failed is tried anew: memory may have been short
            with open(self._journal, "a", encoding="utf-8") as file:
                file.write(json.dumps([key, [["", *part[1:]] for part in parts]]) + "\n")

    def _read(self) -> Iterator[tuple[str, list[list[Any]]]]:
        with contextlib.suppress(FileNotFoundError), open(self._journal, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError):  # cut short by a kill
                    key, parts = json.loads(line)
                    yield key, parts

    def _remove_old(self) -> None:
        """What a job left that was never submitted to its end."""
        for path in self.files.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_SECONDS:
                    path.unlink()


def staged(folder: Path, sha256: str) -> Path:
    """Where a file waits."""
    return folder / sha256


def neutral_parts(place: Sequence[Any], image: Mapping[str, Any]) -> list[list[Any]]:
    """Convert an image; for a pool.

    Args:
        place: the folder of the files, and how much of its disk must stay free; files are left out where it would not.
        image: the fields of a `Wanted`.

    Returns:
        [name, sha256, size] of each part; where a part cannot be used [name, "", why].

    Raises:
        BadInput: the image cannot be used.
    """
    from medmae.volumes.contents import images_of_dicom_folder

    folder = _Folder(Path(place[0]), place[1])
    wanted = Wanted(**image)
    path = Path(wanted.path)
    if wanted.at_most is None or not path.is_dir():
        return [["", *stored] for stored in _converted(folder, wanted)]
    found = images_of_dicom_folder(path)
    if len(found) == 1:
        one = dataclasses.replace(wanted, path=str(found[0].path), series=found[0].series)
        return [["", *stored] for stored in _converted(folder, one)]
    parts: list[list[Any]] = []
    for each in found:
        name = str(each.path) if each.series is None else f"{each.path} (series {each.series})"
        one = dataclasses.replace(wanted, path=str(each.path), series=each.series)
        try:
            parts += [[name, *stored] for stored in _converted(folder, one)]
        except BadInput as error:
            parts.append([name, "", str(error)])
    return parts


@dataclass(frozen=True)
class _Folder:
    path: Path
    kept_free_bytes: int


def _converted(folder: _Folder, wanted: Wanted) -> list[tuple[str, int]]:
    frames: list[int | None] = [wanted.frame]
    if wanted.at_most is not None:
        from medmae.pretraining.image_preparation import frame_numbers
        from medmae.pretraining.sources import Source

        frames = frame_numbers(Source("", (wanted.path,)), wanted.at_most, {})

    def volumes() -> Iterator[Volume]:
        return (read_image(wanted.path, frame=frame, series=wanted.series) for frame in frames)

    try:
        return [_store(folder, volumes(), len(frames))]
    except UnlikeFrames:
        return [_store(folder, iter([volume]), 1) for volume in volumes()]


def _store(folder: _Folder, frames: Iterator[Volume], count: int) -> tuple[str, int]:
    """Write a neutral file under its hash; returns hash and size."""
    has_room = shutil.disk_usage(folder.path).free > folder.kept_free_bytes
    with contextlib.closing(_Hashed(folder.path / f"{PARTIAL}{secrets.token_hex(8)}", keep=has_room)) as file:
        write_neutral(frames, count, file.write)
        sha256 = file.digest.hexdigest()
        file.keep(staged(folder.path, sha256))
        return sha256, file.size


class _Hashed:
    """A file and its hash; where the disk is full, the hash alone."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.digest, self.size = hashlib.sha256(), 0
        self._path = path
        self._file = open(path, "wb") if keep else None  # noqa: SIM115

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.close()

    def keep(self, path: Path) -> None:
        if self._file is not None:
            self._file.close()
            self._path.replace(path)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is still to be written does not matter any more
                self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)


def _fields(image: Wanted) -> dict[str, Any]:
    return dataclasses.asdict(image)


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def _stamp(path: Path) -> list[list[int]]:
    """Size and time of change of a file, or of every file in a folder; [] where there is none."""
    if path.is_dir():
        return sorted(stamp for folder, _, names in os.walk(path) for name in names
                      for stamp in _stamp(Path(folder, name)))
    with contextlib.suppress(OSError):
        status = path.stat()
        return [[status.st_size, status.st_mtime_ns]]
    return []


def _suffix_of(path: Path) -> str:
    return path.suffix if path.suffix in (".json", ".safetensors", ".png", ".bin") else ""
