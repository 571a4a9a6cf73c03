"""Blobs on a target: ``FOLDER/data/<2 hex>/<sha256><suffix>``, each stored once whatever runs read it.

What arrives lies in ``FOLDER/incoming/<sha256>`` until it is whole and its hash is right. A blob that was verified gets
a fixed time of change, so that one that was written to since is noticed and verified again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from medmae.errors import BadInput
from medmae.jobs.there.serving import CHUNK, Channel

VERIFIED_NS = 10**18  # September 2001
REPORT_SECONDS = 1.0
SHA256 = re.compile(r"[0-9a-f]{64}")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,20}){0,3}")


def medmae_folder(arguments: dict[str, Any]) -> Path:
    """The folder of MedMAE there, which may be given relative to the home folder."""
    return Path.home() / Path(arguments["folder"]).expanduser()


def blob_path(folder: Path, sha256: str, suffix: str) -> Path:
    """Where a blob lies.

    Raises:
        BadInput: it is not named by a hash.
    """
    if not SHA256.fullmatch(sha256) or not _SUFFIX.fullmatch(suffix):
        raise BadInput(f"{sha256 + suffix!r} is not the name of a blob.")
    return folder / "data" / sha256[:2] / (sha256 + suffix)


def missing(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Which of `blobs` [sha256, suffix, size] are not there, each with how many of its bytes have arrived already.

    Also how much space is left, and whether rsync is there.
    """
    folder, told = medmae_folder(arguments), _Telling(channel)
    absent = []
    for number, (sha256, suffix, size) in enumerate(arguments["blobs"]):
        told.report(done=number)
        if not _is_whole(blob_path(folder, sha256, suffix), sha256, size, told):
            arrived = _size_of(folder / "incoming" / sha256)
            absent.append([sha256, arrived if 0 < arrived <= size else 0])
    incoming = folder / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    return {"missing": absent, "free": shutil.disk_usage(folder).free, "incoming": str(incoming),
            "rsync": shutil.which("rsync") is not None}


def _is_whole(path: Path, sha256: str, size: int, told: _Telling) -> bool:
    if _size_of(path) != size:
        path.unlink(missing_ok=True)
        return False
    if path.stat().st_mtime_ns == VERIFIED_NS:
        return True
    if _sha256_of(path, told) != sha256:  # its hard links in the folders of runs keep their damage
        path.unlink()
        return False
    os.utime(path, ns=(VERIFIED_NS, VERIFIED_NS))
    return True


def receive(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Write what the caller sends: of each of `blobs` [sha256, suffix, size, offset] the bytes from `offset` on.

    A caller that is cut off leaves what has arrived. Returns the blobs that arrived damaged and are gone.
    """
    folder, told = medmae_folder(arguments), _Telling(channel)
    (folder / "incoming").mkdir(parents=True, exist_ok=True)
    arrived, damaged = 0, []
    for sha256, suffix, size, offset in arguments["blobs"]:
        place = blob_path(folder, sha256, suffix)
        part = folder / "incoming" / sha256
        with open(part, "r+b" if offset else "wb") as file:
            file.truncate(offset)
            file.seek(offset)
            left = size - offset
            while left:
                data = channel.read(min(left, CHUNK))
                if not data:
                    raise BadInput("The upload ended in the middle.")
                file.write(data)
                left -= len(data)
                arrived += len(data)
                told.report(bytes=arrived)
        if not _accept(part, place, sha256, size, told):
            damaged.append(sha256)
    return {"damaged": damaged}


def accept(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Verify `blobs` [sha256, suffix, size] in ``incoming``; returns the damaged ones, which are gone."""
    folder, told = medmae_folder(arguments), _Telling(channel)
    return {"damaged": [sha256 for sha256, suffix, size in arguments["blobs"]
                        if not _accept(folder / "incoming" / sha256, blob_path(folder, sha256, suffix), sha256, size,
                                       told)]}


def _accept(part: Path, place: Path, sha256: str, size: int, told: _Telling) -> bool:
    if _size_of(part) != size or _sha256_of(part, told) != sha256:
        part.unlink(missing_ok=True)
        return False
    place.parent.mkdir(parents=True, exist_ok=True)
    part.chmod(0o600)
    os.utime(part, ns=(VERIFIED_NS, VERIFIED_NS))
    part.replace(place)
    return True


def assemble(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Put `files` {path in the run folder: [sha256, suffix]} into the folder `run`, as hard links where these work.

    Raises:
        BadInput: a path leads out of the folder, or a blob is not there.
    """
    folder, run, told = medmae_folder(arguments), Path(arguments["run"]), _Telling(channel)
    for number, (name, (sha256, suffix)) in enumerate(arguments["files"].items()):
        told.report(done=number)
        place, blob = run / inside(name), blob_path(folder, sha256, suffix)
        if not blob.is_file():
            raise BadInput(f"The blob {blob.name} is not on the target. Submit the job again.")
        if place.exists() and place.samefile(blob):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(blob, place)
        except OSError:  # no hard links here, or too many of this blob
            shutil.copyfile(blob, place)
    return {"files": len(arguments["files"])}


def clean(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Delete the blobs that no run folder has a hard link to; nothing else, and nothing behind a link.

    Args:
        arguments: folder.

    Returns:
        removed, kept: [number of blobs, bytes] each.
    """
    told = _Telling(channel)
    removed, kept = [0, 0], [0, 0]
    for blob in _blobs(medmae_folder(arguments) / "data"):
        facts = blob.stat()
        counted = removed if facts.st_nlink == 1 else kept
        counted[0] += 1
        counted[1] += facts.st_size
        if counted is removed:
            blob.unlink()
        told.report(done=removed[0])
    return {"removed": removed, "kept": kept}


def _blobs(data: Path) -> Iterator[Path]:
    """All that `blob_path` can have named."""
    if data.is_symlink():
        return
    for folder in data.glob("[0-9a-f][0-9a-f]"):
        for path in [] if folder.is_symlink() else folder.iterdir():
            sha256, suffix = path.name[:64], path.name[64:]
            is_name = SHA256.fullmatch(sha256) and sha256[:2] == folder.name and _SUFFIX.fullmatch(suffix)
            if is_name and path.is_file() and not path.is_symlink():
                yield path


def list_files(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Size and SHA-256 of the files below `run` that `wanted` (files and folders in it) names.

    Links are passed over, and so is what is not there.
    """
    run, told = Path(arguments["run"]), _Telling(channel)
    found: dict[str, list[Any]] = {}
    for name in arguments["wanted"]:
        for path in _files_below(run / inside(name)):
            found[path.relative_to(run).as_posix()] = [_size_of(path), _sha256_of(path, told)]
    return {"files": found}


def send(arguments: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Send of each of `files` [path in `run`, offset, size] the bytes from `offset` to `size`."""
    run = Path(arguments["run"])
    for name, offset, size in arguments["files"]:
        with open(run / inside(name), "rb") as file:
            file.seek(offset)
            left = size - offset
            while left:
                data = file.read(min(left, CHUNK))
                if not data:
                    raise BadInput(f"{name} became shorter while it was sent. Fetch it again.")
                channel.write(data)
                left -= len(data)
    return {}


def inside(name: str) -> PurePosixPath:
    """A relative path that stays where it begins.

    Raises:
        BadInput: it does not.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise BadInput(f"{name!r} is not a path within a run folder.")
    return path


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_symlink():
        return
    if path.is_file():
        yield path
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file() and not file.is_symlink():
                yield file


def _size_of(path: Path) -> int:
    """-1 where there is no file."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return -1


def _sha256_of(path: Path, told: _Telling) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            told.report(checking=path.name)
    return digest.hexdigest()


class _Telling:
    """Reports now and then, so that the caller knows that we live."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._last = channel, time.monotonic()

    def report(self, **progress: Any) -> None:
        if time.monotonic() - self._last >= REPORT_SECONDS:
            self._last = time.monotonic()
            self._channel.report(**progress)
