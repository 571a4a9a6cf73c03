"""Files that are either whole or absent: atomic writing, hashing and reading of JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medmae.errors import BadInput

PARTIAL = ".partial-"  # begins the name of whatever is not finished yet
LONGEST_END = 200  # bytes; file systems take names of 255


@contextmanager
def atomic_path(path: Path | str, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` with the same suffixes; rename it over `path` when the block succeeds.

    Readers see the old file or the new one, never a part, even after ``kill -9``. Only its owner can read a `private`
    file, at no time anybody else.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=f"-{_end_of(path.name)}", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o600 if private else 0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _end_of(name: str) -> str:
    """A name, or of one that leaves no room for more in a name the end."""
    return os.fsencode(name)[-LONGEST_END:].decode(errors="ignore") if len(os.fsencode(name)) > LONGEST_END else name


def remove_partial(folder: Path, keep_records: bool = False) -> None:
    """Remove what a process that was killed in the middle of writing left anywhere under `folder`.

    Args:
        folder: where.
        keep_records: leave JSON files at its top, which other processes may be writing at this moment.
    """
    for path in folder.rglob(f"{PARTIAL}*"):
        if keep_records and path.parent == folder and path.suffix == ".json":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path | str, text: str, *, private: bool = False) -> None:
    """Write `text` as UTF-8, atomically; odd bytes of file names become ``\\udcNN``, as in JSON."""
    with atomic_path(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path | str, data: Any, *, private: bool = False) -> None:
    """Write `data` as indented JSON, atomically. NaN and infinities are refused: they are not JSON."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def read_json(path: Path | str, what: str = "file") -> Any:
    """Read a JSON file; `what` names its role in the error.

    Raises:
        BadInput: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"The {what} {path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise BadInput(f"The {what} {path} is a folder, but a JSON file is expected. Check the path.") from None
    except (ValueError, RecursionError) as error:  # beyond what is no JSON: absurdly long numbers, absurdly deep
        raise BadInput(f"The {what} {path} is not valid JSON ({error}). Repair it or write it anew.") from None


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
