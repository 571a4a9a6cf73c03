"""One writer at a time in a folder of results, whatever way the writer ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medmae.errors import BadInput


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make `folder` where needed and keep other processes that ask for it out while the block runs.

    The system takes the lock back when the process ends, also by ``kill -9``. Folders that were made and are empty
    afterwards are removed. A file system without locks is used without.

    Raises:
        BadInput: another process writes into the folder, or this one may not.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"The folder {folder} cannot be made ({error.strerror}). Choose another --out.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadInput(f"The folder {folder} cannot be written to. Choose another --out, or change its permissions.")
    try:
        with _lock(folder):
            yield
    finally:
        remove_empty(made)


def has_writer(folder: Path) -> bool:
    """Whether a process writes into the folder."""
    try:
        with _lock(folder):
            return False
    except BadInput:
        return True


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        handle = _locked(folder)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EEXIST):
            yield  # no locks here
            return
        raise BadInput(f"Another process is writing its results into {folder}. Wait until it has ended, or choose "
                       "another folder (--out).") from None
    try:
        yield
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """A descriptor that holds the lock until it is closed.

    Raises:
        OSError: EAGAIN, EACCES or EEXIST where another process holds it, others where there are no locks.
    """
    if sys.platform == "win32":  # where folders cannot be locked: a file that is there as long as it is open
        name = hashlib.sha256(os.path.realpath(folder).encode("utf-8", "surrogatepass")).hexdigest()
        path = Path(tempfile.gettempdir(), f"medmae-{name[:32]}.lock")
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_TEMPORARY)
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
