"""Arrays in temporary files: as large as the disk allows, while memory holds only what is being written."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from medmae.errors import BadInput
from medmae.inference.memory import format_memory


def mapped_array(shape: tuple[int, ...], dtype: DTypeLike, folder: Path, what: str) -> np.memmap:
    """Zeros in a file without a name in `folder`, gone with the array, or with the process however it ends.

    Raises:
        BadInput: the disk has no room for `what`; told before anything is computed, because writing to a mapped file on
            a full disk would end the process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if shutil.disk_usage(folder).free < size:
                raise OSError(errno.ENOSPC, "too little room")
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            raise BadInput(f"{what} need {format_memory(size)} of room in {folder} while they are made, and less is "
                           "free. Free some, choose another --out, or leave them out.") from None
        return np.memmap(file, np.dtype(dtype), "r+", shape=shape)


def release(array: np.memmap) -> None:
    """Let the system write out what was changed and take back the memory; the content stays."""
    mapping = array._mmap  # type: ignore[attr-defined]
    if hasattr(mapping, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
