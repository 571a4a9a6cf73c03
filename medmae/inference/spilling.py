"""Arrays that lie in temporary files instead of memory, for volumes that do not fit under a limit."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import DTypeLike, NDArray


class SpilledArrays:
    """Makes arrays in temporary files, and drops their pages from memory on request.

    Pages that are dropped stay in the files (and in the system's cache as long as it has room); they come back when
    they are used. The files have no name where the system allows it, so nothing is left behind however a run ends.

    Args:
        folder: where the files lie; None: the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.maps: list[mmap.mmap] = []

    def __enter__(self) -> SpilledArrays:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.forget()
        self.maps.clear()  # a file goes with the last array that uses it

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray:
        """An array of zeros.

        Raises:
            OSError: the disk is full.
        """
        size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            _reserve(file.fileno(), size)
            pages = mmap.mmap(file.fileno(), size)
        self.maps.append(pages)
        return np.frombuffer(pages, dtype, count=int(np.prod(shape))).reshape(shape)

    def forget(self) -> None:
        """Drop what memory holds of the arrays; their values stay."""
        if not hasattr(mmap, "MADV_DONTNEED"):  # Windows decides by itself
            return
        for pages in self.maps:
            pages.madvise(mmap.MADV_DONTNEED)


def _reserve(file: int, size: int) -> None:
    """Give a file its size; where the system can, with its blocks, because a full disk later would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)
