"""How much memory this process holds and may take, and sizes as people write them.

Works without further packages: Linux tells all through /proc, other systems through what Python and ctypes reach.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from medmae.errors import BadInput

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_STATUS = Path("/proc/self/status")
# glibc's mallopt, from malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_RETURNED_BYTES = 2**20
_KEPT_BYTES = 2**25  # to where glibc raises that border by itself

_earlier_peak = 0  # from before the system's counter was reset
_is_returned = False  # freed memory, at once


def parse_memory(text: str) -> int:
    """Bytes of a size such as "4GB", "3.5 GiB" or "800 MB"; a plain number is bytes.

    Raises:
        BadInput: it is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", str(text))
    factor = _UNITS.get(match[2].upper()) if match else None
    if match is None or factor is None or float(match[1]) <= 0:
        raise BadInput(f"'{text}' is not an amount of memory. Write a number and MB or GB, for example 4GB.")
    return int(float(match[1]) * factor)


def format_memory(size: float) -> str:
    """A size for people: "2.1 GB", "640 MB" (powers of ten, as `parse_memory` reads them back)."""
    if size < 999.5e6:
        return f"{max(1, math.ceil(size / 1e6))} MB"
    return f"{size / 1e9:.1f} GB"


def resident_bytes() -> int:
    """What the process holds in memory now."""
    if sys.platform.startswith("linux"):
        return _status_bytes("VmRSS")
    if sys.platform == "win32":
        return int(_windows_counters().WorkingSetSize)
    return _mac_task_bytes() or peak_bytes()


def peak_bytes() -> int:
    """The most that the process has held in memory at once, since it began or since `reset_peak`."""
    return max(_earlier_peak, _system_peak())


def reset_peak() -> None:
    """Let `peak_bytes` count from now on, where the system can do that (Linux)."""
    global _earlier_peak
    if _reset_system_peak():
        _earlier_peak = 0


class Growth:
    """How much memory a piece of work takes at most, beyond what was held before it.

    On Linux the system's own counter tells exactly; elsewhere a thread looks at the process every millisecond, which
    works because the operators of torch let other threads run.

    Attributes:
        bytes: the most that was held within the ``with`` block, minus what was held before; 0 or more.
        kept: what is held after it, minus what was held before; 0 or more.
    """

    def __init__(self) -> None:
        self.bytes = self.kept = 0

    def __enter__(self) -> Growth:
        global _earlier_peak
        peak = peak_bytes()
        self._before = self._highest = resident_bytes()
        self._ended: threading.Event | None = None
        if _reset_system_peak():
            _earlier_peak = peak
        else:
            self._ended = threading.Event()
            self._watcher = threading.Thread(target=self._watch, args=(self._ended,), daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._ended is None:
            self._highest = _system_peak()
        else:
            self._ended.set()
            self._watcher.join()
        self.bytes = max(0, self._highest - self._before)
        self.kept = min(self.bytes, max(0, resident_bytes() - self._before))

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(0.001):
            self._highest = max(self._highest, resident_bytes())


def available_bytes() -> int | None:
    """Memory that can be taken without swapping, within the limit of a container; None where it is not known."""
    limits = [value for value in (_meminfo_available(), _cgroup_left()) if value is not None]
    if limits:
        return min(limits)
    if sys.platform == "win32":
        return _windows_available()
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def return_freed_memory() -> bool:
    """Make glibc give blocks of 1 MiB and more back to the system as soon as they are freed; elsewhere nothing.

    By default glibc raises that border by itself up to 32 MiB as large blocks come and go, keeps what is freed below it
    for later, and scatters it: after some windows a process holds more than it uses, and how much more is chance. With
    a fixed border the peak is what lives at once. The price is time, because every large block is new to the system
    (measured: a forward pass takes 1.3 to 1.6 times as long), so it is only for measuring, and for processes with a
    limit that is tight.

    Returns:
        Whether it could be set.
    """
    global _is_returned
    _is_returned = _set_border(_RETURNED_BYTES, _RETURNED_BYTES)
    return _is_returned


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """`return_freed_memory` within the block; afterwards glibc keeps as much as it comes to keep by itself."""
    global _is_returned
    was_returned = _is_returned
    return_freed_memory()
    try:
        yield
    finally:
        if not was_returned and _is_returned:
            _is_returned = False
            _set_border(_KEPT_BYTES, 2 * _KEPT_BYTES)


def can_return_freed_memory() -> bool:
    """Whether `return_freed_memory` does anything here."""
    return _mallopt() is not None


def _set_border(mapped: int, trimmed: int) -> bool:
    """From which size on blocks go back when they are freed, and free memory at the end of the heap."""
    mallopt = _mallopt()
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, mapped) and mallopt(_M_TRIM_THRESHOLD, trimmed))


def _mallopt() -> Any:
    """glibc's function; None with another C library."""
    try:
        return ctypes.CDLL(None).mallopt if sys.platform.startswith("linux") else None
    except (OSError, AttributeError):
        return None


def _system_peak() -> int:
    if sys.platform.startswith("linux"):
        return _status_bytes("VmHWM")
    if sys.platform == "win32":
        return int(_windows_counters().PeakWorkingSetSize)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _reset_system_peak() -> bool:
    """Let the system count the peak from now on; says whether it can."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # some containers forbid it
        return False
    return True


def _status_bytes(name: str) -> int:
    """A size in /proc/self/status, which gives kB of 1024 bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {name}")


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_left() -> int | None:
    """What a container's limit leaves; None without one. Pages of files, which the system drops, do not count."""
    for limit, used, cached in (("memory.max", "memory.current", "inactive_file"),
                                ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
                                 "total_inactive_file")):
        root = Path("/sys/fs/cgroup")
        try:
            text = (root / limit).read_text().strip()
            now = int((root / used).read_text())
            stat = dict(line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if text.isdigit() and int(text) < 2**60:
            return max(0, int(text) - now + int(stat.get(cached, 0)))
    return None


def _windows_counters() -> Any:
    """PROCESS_MEMORY_COUNTERS of this process."""
    size, word = ctypes.c_size_t, ctypes.c_uint32

    class Counters(ctypes.Structure):
        _fields_ = [("cb", word), ("PageFaultCount", word), ("PeakWorkingSetSize", size), ("WorkingSetSize", size),
                    ("QuotaPeakPagedPoolUsage", size), ("QuotaPagedPoolUsage", size),
                    ("QuotaPeakNonPagedPoolUsage", size), ("QuotaNonPagedPoolUsage", size), ("PagefileUsage", size),
                    ("PeakPagefileUsage", size)]

    counters = Counters()
    counters.cb = ctypes.sizeof(counters)
    kernel = _windows_kernel()
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, word]
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        raise RuntimeError("GetProcessMemoryInfo failed")
    return counters


def _windows_available() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("dwLength", ctypes.c_uint32), ("dwMemoryLoad", ctypes.c_uint32),
                    *((name, ctypes.c_uint64) for name in ("TotalPhys", "AvailPhys", "TotalPageFile", "AvailPageFile",
                                                           "TotalVirtual", "AvailVirtual", "AvailExtended"))]

    status = Status()
    status.dwLength = ctypes.sizeof(status)
    if not _windows_kernel().GlobalMemoryStatusEx(ctypes.byref(status)):
        raise RuntimeError("GlobalMemoryStatusEx failed")
    return int(status.AvailPhys)


def _windows_kernel() -> Any:
    return ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]


def _mac_task_bytes() -> int | None:
    """Resident size of this task from mach's task_info (MACH_TASK_BASIC_INFO = 20); None where it does not answer."""
    class Info(ctypes.Structure):
        _fields_ = [("virtual_size", ctypes.c_uint64), ("resident_size", ctypes.c_uint64),
                    ("resident_size_max", ctypes.c_uint64), ("times", ctypes.c_uint32 * 4),
                    ("policy", ctypes.c_int32), ("suspend_count", ctypes.c_int32)]

    info, count = Info(), ctypes.c_uint32(ctypes.sizeof(Info) // 4)
    try:
        library = ctypes.CDLL(None)
        library.mach_task_self.restype = ctypes.c_uint32
        failed = library.task_info(library.mach_task_self(), 20, ctypes.byref(info), ctypes.byref(count))
    except (OSError, AttributeError):
        return None
    return None if failed else int(info.resident_size)
