"""The private folder in which a client and its worker exchange voxels. Standard library alone."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PREFIX = "medmae-worker-"
_KINDS = {**dict.fromkeys("bhilq", "int"), **dict.fromkeys("BHILQ", "uint"), **dict.fromkeys("efd", "float")}
_CODES = {"uint8": "B", "int16": "h", "uint16": "H", "int32": "i"}
LABEL_BYTES = {"uint8": 1, "int16": 2, "uint16": 2, "int32": 4}


class Exchange:
    """Files of raw voxels that nobody else can read.

    Args:
        parent: the folder to make it in; default: that of temporary files.
    """

    def __init__(self, parent: Path | str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._files = 0

    def put(self, array: Any) -> dict[str, Any]:
        """Copy an array (anything with the buffer protocol) into a new file; the "buffer" of the protocol.

        Raises:
            TypeError: its elements are not plain numbers.
        """
        view = memoryview(array)
        dtype, shape = dtype_of(view), view.shape or ()
        path = self._new_path()
        with open(path, "wb") as file:
            if view.c_contiguous:
                file.write(view)
            else:  # a view of another array: one slice at a time, for the memory's sake
                for part in range(shape[0]):
                    file.write(view[part:part + 1].tobytes())
        return {"path": str(path), "dtype": dtype, "shape": list(shape)}

    def space(self, dtype: str, shape: Sequence[int]) -> dict[str, Any]:
        """A new file of zeros for labels, uint8, int16, uint16 or int32; the "buffer" of the protocol.

        Raises:
            ValueError: another type.
            OSError: the disk is full.
        """
        if dtype not in LABEL_BYTES:
            raise ValueError(f"labels cannot be of type {dtype!r}: use one of {', '.join(LABEL_BYTES)}")
        path, size = self._new_path(), math.prod(shape) * LABEL_BYTES[dtype]
        with open(path, "wb") as file:
            if size and hasattr(os, "posix_fallocate"):  # its blocks too: a full disk would end the worker later on
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        return {"path": str(path), "dtype": dtype, "shape": list(shape)}

    def remove(self, buffer: dict[str, Any]) -> None:
        """Delete the file of a buffer. Windows refuses while it is looked at; `close` tries again."""
        with contextlib.suppress(OSError):
            Path(buffer["path"]).unlink()

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _new_path(self) -> Path:
        self.folder.mkdir(mode=0o700, exist_ok=True)  # cleaners of temporary folders may have been here
        self._files += 1
        return self.folder / f"{self._files}.raw"


def view_of(buffer: dict[str, Any]) -> memoryview:
    """The voxels of a label buffer in its shape, without copying; changes to them stay private."""
    with open(buffer["path"], "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return memoryview(mapped).cast(_CODES[buffer["dtype"]], buffer["shape"])  # type: ignore[call-overload]


def dtype_of(view: memoryview) -> str:
    """The protocol's name of an array's element type.

    Raises:
        TypeError: its elements are not plain numbers in this machine's byte order.
    """
    code = view.format.removeprefix("@").removeprefix("=")
    if code not in _KINDS:
        raise TypeError(f"Voxels of the type {view.format!r} cannot be handed over. Convert them to whole numbers or "
                        "to float32 first.")
    return f"{_KINDS[code]}{8 * view.itemsize}"
