"""The SHA-256 of a large file, begun before it is needed, which also brings the file into the system's cache.

Hashing the weights of the published UNETR (460 MB) takes a third of a second of a core, reading them from a disk
longer; both go on while torch is imported.
"""

from __future__ import annotations

import threading
from pathlib import Path

from medmae.files import sha256_of

Identity = tuple[int, ...]


def identity_of(path: Path) -> Identity:
    """What tells that a file was replaced or changed: device, inode, size, times of the last change (ns).

    Both times, because programs that copy may set the first back.
    """
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def begin_to_hash(path: Path) -> None:
    """Begin in a thread; returns at once. One file at a time is remembered.

    Raises:
        OSError: there is no such file.
    """
    hashing = _Hashing(path)
    with _lock:
        _begun.clear()
        _begun[path] = hashing


def known_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal: the one that was begun, where the file is still the same.

    Raises:
        OSError: it cannot be read.
    """
    with _lock:
        hashing = _begun.pop(path, None)
    if hashing is not None:
        hashing.thread.join()
        if hashing.sha256 is not None and hashing.identity == identity_of(path):
            return hashing.sha256
    return sha256_of(path)


class _Hashing:
    def __init__(self, path: Path) -> None:
        self.identity = identity_of(path)
        self.sha256: str | None = None
        self._path = path
        self.thread = threading.Thread(target=self._hash, name="sha256", daemon=True)
        self.thread.start()

    def _hash(self) -> None:
        try:
            self.sha256 = sha256_of(self._path)
        except OSError:
            self.sha256 = None  # whoever needs it reads again and gets the reason


_begun: dict[Path, _Hashing] = {}
_lock = threading.Lock()
