"""Voxels shared with the client: memory-mapped files and shared memory, as numpy arrays. No copies, no pickle."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from collections.abc import Iterator

import numpy as np

from medmae.errors import BadInput
from medmae.worker.protocol import Buffer


@contextlib.contextmanager
def opened(buffer: Buffer, *, writable: bool = False) -> Iterator[np.ndarray]:
    """The voxels of `buffer`, in its shape, while the block runs.

    Raises:
        BadInput: there is no such file or shared memory, it may not be used, or is shorter than its shape says.
    """
    dtype = np.dtype(buffer.dtype).newbyteorder("<")
    count = int(np.prod(buffer.shape, dtype=np.int64))
    needed = buffer.offset + count * dtype.itemsize
    name = buffer.path or f"shared memory {buffer.shared_memory}"
    try:
        mapped = _mapped(buffer, needed, writable)
    except (OSError, ValueError) as error:
        raise BadInput(f"The buffer {name} cannot be opened ({error}). Make it before the request, and keep it until "
                       "the answer has come.") from None
    if len(mapped) < needed:
        found = len(mapped)
        mapped.close()
        raise BadInput(f"The buffer {name} has {found} bytes, but its shape, type and offset need {needed}. "
                       "Correct the shape or write it whole.")
    array = np.frombuffer(mapped, dtype, count, buffer.offset).reshape(buffer.shape)
    try:
        yield array
    finally:
        del array
        # Somebody may still look at the voxels, a traceback for instance; the mapping goes with its last user then.
        with contextlib.suppress(BufferError):
            mapped.close()


def _mapped(buffer: Buffer, needed: int, writable: bool) -> mmap.mmap:
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    if buffer.path is None and sys.platform == "win32":
        return _windows_mapping(str(buffer.shared_memory), needed, access)
    if buffer.path is not None:
        flags = (os.O_RDWR if writable else os.O_RDONLY) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(buffer.path, flags)
    else:
        descriptor = _shared_memory(str(buffer.shared_memory), writable)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # opened without waiting for the other end of a pipe
            raise ValueError("it is not a file")
        if os.fstat(descriptor).st_size == 0:
            raise ValueError("it is empty")
        return mmap.mmap(descriptor, 0, access=access)
    finally:
        os.close(descriptor)


def _shared_memory(name: str, writable: bool) -> int:
    """A descriptor of POSIX shared memory.

    Not by `multiprocessing.shared_memory`: before Python 3.13 it registers what it only opens, starts a process for
    that, and deletes the client's memory when this process ends.
    """
    import _posixshmem

    flags = os.O_RDWR if writable else os.O_RDONLY
    return _posixshmem.shm_open("/" + name.lstrip("/"), flags, mode=0o600)


def _windows_mapping(name: str, needed: int, access: int) -> mmap.mmap:
    """A named mapping that exists; `mmap` alone would make a new one of that name."""
    import _winapi

    handle = _winapi.OpenFileMapping(0x0004, False, name)  # type: ignore[attr-defined]  # FILE_MAP_READ
    try:
        return mmap.mmap(-1, needed, tagname=name, access=access)  # type: ignore[call-arg]
    finally:
        _winapi.CloseHandle(handle)  # type: ignore[attr-defined]
