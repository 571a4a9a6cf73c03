"""Files to a target and back: only what is missing, verified by hash, resumable in the middle of a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medmae.errors import BadInput
from medmae.jobs import rsync
from medmae.jobs.problems import TargetProblem, odd_answer
from medmae.jobs.there.data import SHA256, inside
from medmae.jobs.there.serving import CHUNK
from medmae.jobs.told import mapping, whole
from medmae.jobs.transport import Transport
from medmae.jobs.upload import Blob, Report, Upload

ASKED_AT_ONCE = 5000
BATCH_FILES, BATCH_BYTES = 500, 2**30
LEAST_FOR_RSYNC = 2**20  # smaller batches take one call instead of two
ATTEMPTS = 3
RESERVE_BYTES = 2**26  # that a run needs at the least for its own files
UPLOAD, DOWNLOAD = "upload", "download"
SILENCE_S = 120.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def upload(transport: Transport, folder: str, upload: Upload, report: Report) -> None:
    """Bring the blobs of `upload` to the target's store, as far as they are not there.

    Args:
        transport: to the target.
        folder: that of MedMAE there, absolute.
        upload: what to bring.
        report: takes ("upload", bytes done, bytes in all).

    Raises:
        ConnectionLost: another call goes on where this one ended.
        TargetProblem: the disk there is full, or files arrive damaged again and again.
        BadInput: a file here changed meanwhile.
    """
    blobs = {blob.sha256: blob for blob in upload.files.values()}
    total = sum(blob.size for blob in blobs.values())
    for _ in range(ATTEMPTS):
        store = _Store(transport, folder)
        absent = store.absent(blobs)
        done = total - sum(blob.size - arrived for blob, arrived in absent)
        report(UPLOAD, done, total)
        if not absent:
            return
        for batch in _batches(absent):
            store.send(upload, batch, lambda arrived, before=done: report(UPLOAD, before + arrived, total))  # type: ignore[misc]
            done += sum(blob.size - arrived for blob, arrived in batch)
            for blob, _ in batch:
                upload.release(blob.sha256)  # one that arrived damaged is made again
    raise TargetProblem("damaged upload", f"Files arrive damaged on {transport.target.name}, {ATTEMPTS} times.",
                        "Check the disk there and the network.")


class _Store:
    """The blobs on a target."""

    def __init__(self, transport: Transport, folder: str) -> None:
        self._transport, self._folder = transport, folder
        self._incoming = ""
        self._has_rsync = False

    def absent(self, blobs: dict[str, Blob]) -> list[tuple[Blob, int]]:
        """The blobs that are not there, each with how many of its bytes are.

        Raises:
            TargetProblem: there is no room for them.
        """
        found: list[tuple[Blob, int]] = []
        wanted = list(blobs.values())
        free = 0
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            asked = [[blob.sha256, blob.suffix, blob.size] for blob in wanted[start:start + ASKED_AT_ONCE]]
            answer = self._call("data.missing", asked)
            free, self._incoming, self._has_rsync = answer["free"], answer["incoming"], answer["rsync"]
            found += [(blobs[sha256], arrived) for sha256, arrived in answer["missing"]]
        needed = sum(blob.size - arrived for blob, arrived in found)
        if found and free < needed + RESERVE_BYTES:
            raise self._disk_full(f"{_told(needed)} are still to be sent and {_told(free)} are free")
        return found

    def send(self, upload: Upload, batch: list[tuple[Blob, int]], arrived: Callable[[int], Any]) -> None:
        """Bring blobs there; one that arrives damaged is gone again. `arrived` takes the bytes that went."""
        size = sum(blob.size - offset for blob, offset in batch)
        try:
            if size >= LEAST_FOR_RSYNC and rsync.can_push(self._transport.target, is_there=self._has_rsync):
                self._push(upload, batch, lambda bytes_: arrived(min(bytes_, size)))
            else:
                self._stream(upload, batch, arrived)
        except rsync.NoRsync:
            self._has_rsync = False
            self.send(upload, batch, arrived)
        except rsync.NoRoom as error:
            raise self._disk_full(str(error)) from None
        except OSError as error:
            if error.errno in _FULL:
                raise self._disk_full(str(error)) from None
            raise

    def _push(self, upload: Upload, batch: list[tuple[Blob, int]], arrived: Callable[[int], Any]) -> None:
        files = {blob.sha256: upload.sources[blob.sha256] for blob, _ in batch}
        rsync.push(self._transport.target, files, self._incoming, arrived)
        self._call("data.accept", [[blob.sha256, blob.suffix, blob.size] for blob, _ in batch])

    def _stream(self, upload: Upload, batch: list[tuple[Blob, int]], arrived: Callable[[int], Any]) -> None:
        self._call("data.receive", [[blob.sha256, blob.suffix, blob.size, offset] for blob, offset in batch],
                   send=_pieces(upload, batch),
                   on_progress=lambda told: arrived(told["bytes"]) if "bytes" in told else None)

    def _call(self, operation: str, blobs: list[list[Any]], **options: Any) -> dict[str, Any]:
        return self._transport.call(operation, {"folder": self._folder, "blobs": blobs}, timeout_s=SILENCE_S, **options)

    def _disk_full(self, how: str) -> TargetProblem:
        return TargetProblem("disk full", f"There is not enough space for {self._folder} on "
                                          f"{self._transport.target.name}: {how}.",
                             "Make room there, or choose another folder for the target.")


def _batches(absent: Sequence[tuple[Blob, int]]) -> Iterator[list[tuple[Blob, int]]]:
    batch: list[tuple[Blob, int]] = []
    for one in absent:
        batch.append(one)
        if len(batch) == BATCH_FILES or sum(blob.size for blob, _ in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _pieces(upload: Upload, batch: list[tuple[Blob, int]]) -> Iterator[bytes]:
    """The bytes of a batch, one blob after the other."""
    for blob, offset in batch:
        with open(upload.sources[blob.sha256], "rb") as file:
            file.seek(offset)
            left = blob.size - offset
            while left:
                data = file.read(min(left, CHUNK))
                if not data:
                    raise BadInput(f"{file.name} became shorter while it was sent. Submit the job again.")
                left -= len(data)
                yield data


def _told(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def download(transport: Transport, run_folder: str, destination: Path, wanted: Sequence[str],
             report: Report) -> list[Path]:
    """Bring files of a run from the target; what is here already, and whole, is not sent again.

    Args:
        transport: to the target.
        run_folder: there, absolute.
        destination: the folder here.
        wanted: files and folders in the run folder; what is not there is passed over, and so are links.
        report: takes ("download", bytes done, bytes in all).

    Returns:
        The files here.

    Raises:
        ConnectionLost: another call goes on where this one ended.
        BadInput: the target names files outside of what was asked for, or sends damaged ones.
    """
    listed = transport.call("data.list_files", {"run": run_folder, "wanted": list(wanted)}, timeout_s=SILENCE_S)
    files = {_place(destination, name, wanted): (name, *_size_and_hash(transport, told))
             for name, told in mapping(listed.get("files")).items()}
    total = sum(size for _, size, _ in files.values())
    done = 0
    for place, (name, size, sha256) in files.items():
        if not (place.is_file() and place.stat().st_size == size and _sha256_of(place) == sha256):
            _fetch(transport, run_folder, place, (name, size, sha256),
                   lambda here, before=done: report(DOWNLOAD, before + here, total))  # type: ignore[misc]
        done += size
        report(DOWNLOAD, done, total)
    return list(files)


def _fetch(transport: Transport, run_folder: str, place: Path, file: tuple[str, int, str],
           arrived: Callable[[int], Any]) -> None:
    name, size, sha256 = file
    part = place.with_name(f".partial-{sha256[:32]}")
    place.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):  # the second time from the beginning
        with open(part, "ab") as stream, contextlib.suppress(_TooLong):
            if stream.tell() > size:
                stream.truncate(0)
            begin = stream.tell()

            def take(data: bytes, stream: Any = stream) -> None:
                if stream.tell() + len(data) > size:  # before it fills the disk
                    raise _TooLong
                stream.write(data)
                arrived(stream.tell())

            transport.call("data.send", {"run": run_folder, "files": [[name, begin, size]]}, receive=take,
                           timeout_s=SILENCE_S)
        if _sha256_of(part) == sha256:
            part.replace(place)
            return
        part.unlink()
    raise BadInput(f"{name} changed on {transport.target.name} while it was fetched, or arrives damaged. Fetch again.")


class _TooLong(Exception):
    """More comes of a file than was told."""


def _size_and_hash(transport: Transport, told: Any) -> tuple[int, str]:
    if not (isinstance(told, list) and len(told) == 2 and whole(told[0]) is not None and isinstance(told[1], str)
            and SHA256.fullmatch(told[1])):
        raise odd_answer(transport.target.name)
    return told[0], told[1]


def _place(destination: Path, name: str, wanted: Sequence[str]) -> Path:
    """Where a file goes that the target names.

    Raises:
        BadInput: it was not asked for, or lies outside of `destination`.
    """
    path = inside(name)
    asked = any(path == inside(one) or inside(one) in path.parents for one in wanted)
    place = destination.joinpath(*path.parts)
    linked = any(one.is_symlink() for one in (place, *place.parents) if one.is_relative_to(destination)
                 and one != destination)
    if not asked or linked or "\\" in name or ":" in name:
        raise BadInput(f"The target offers the file {name!r}, which was not asked for or would not stay in "
                       f"{destination}. Nothing of it was fetched.")
    return place


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()
