"""Folders that are either whole or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmae.errors import BadInput
from medmae.files import PARTIAL


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target`; when the block succeeds it takes the place of `target`, else it vanishes.

    An earlier model at `target` stays until the new one is complete. A folder with other content is not touched.

    Raises:
        BadInput: `target` exists and is not a model.
    """
    if target.exists() and not (target / "model.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"{target} exists and is not a model, so it is not replaced. Choose another place.")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
    temporary, earlier = beside / "new", beside / "earlier"
    try:
        temporary.mkdir()
        yield temporary
        _flush(temporary)
        if target.exists():
            target.rename(earlier)
        try:
            temporary.rename(target)
        except OSError:
            if earlier.exists():
                earlier.rename(target)
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Bring the files to the disk before the folder is renamed, so that a crash leaves no empty ones."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
