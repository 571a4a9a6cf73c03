"""Notice that the process which this one works for has gone, on every system.

The end of standard input tells it in most cases, but not when another process still holds the pipe. Linux could send a
signal at the parent's death (PR_SET_PDEATHSIG), but does so already when the parent's *thread* that started us ends,
and never when a launcher, as Slicer's Python has one, lies between. Asking twice a second is right everywhere.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from medmae.run_folder import process_start

ASK_EVERY_SECONDS = 0.5


def call_when_gone(parent: int | None, on_gone: Callable[[], None]) -> None:
    """Call `on_gone`, from a thread, when our parent has ended, or the process `parent` where one is named."""
    threading.Thread(target=_watch, args=(parent, os.getppid(), on_gone), name="parent", daemon=True).start()


def _watch(parent: int | None, direct: int, on_gone: Callable[[], None]) -> None:
    is_alive = [_direct_parent_lives(direct)]
    if parent is not None and parent != direct:
        is_alive.append(_process_lives(parent))
    while all(lives() for lives in is_alive):
        time.sleep(ASK_EVERY_SECONDS)
    on_gone()


def _direct_parent_lives(pid: int) -> Callable[[], bool]:
    if sys.platform == "win32":  # where a process keeps its parent's number after the parent's end
        return _process_lives(pid)
    return lambda: os.getppid() == pid


def _process_lives(pid: int) -> Callable[[], bool]:
    """Whether this very process lives, not another one that got its number later."""
    if sys.platform == "win32":
        import ctypes

        synchronize, timed_out = 0x00100000, 0x00000102
        handle = ctypes.windll.kernel32.OpenProcess(synchronize, False, pid)
        # A process that cannot be opened for want of rights is not known to have ended; the pipes will tell.
        return lambda: not handle or ctypes.windll.kernel32.WaitForSingleObject(handle, 0) == timed_out
    started = process_start(pid)
    return lambda: started is not None and process_start(pid) == started
