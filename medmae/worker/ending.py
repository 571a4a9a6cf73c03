"""How the worker ends: cleanly where the main thread follows soon, and in any case."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from medmae.worker.exchange import PREFIX

EXIT_WITHIN_SECONDS = 1.5
log = logging.getLogger(__name__)


class Ending:
    """Asked for once or more, from any thread; a second and a half later the process is gone whatever it was doing.

    Args:
        exchange: the client's folder of voxels, which is removed when the client cannot do it any more.

    Attributes:
        is_asked: whether the end was asked for.
        on_asked: called when it is.
    """

    def __init__(self, exchange: Path | None) -> None:
        self.is_asked = False
        self.on_asked: Callable[[], None] = lambda: None
        self._is_orphan = False
        self._exchange = exchange

    def ask(self, reason: str, *, is_orphan: bool = False) -> None:
        """Ask for the end; `is_orphan`: the client has disappeared."""
        self._is_orphan |= is_orphan
        if not self.is_asked:
            self.is_asked = True
            log.info("ending: %s", reason)
            threading.Thread(target=self._enforce, name="ending", daemon=True).start()
        self.on_asked()

    def ask_on_signals(self) -> None:
        """SIGTERM, SIGINT and SIGHUP ask for the end; a second one ends the process as usual."""
        names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]

        def handle(number: int, _frame: object) -> None:
            for each in numbers:
                signal.signal(each, signal.SIG_DFL)
            self.ask(f"signal {number}")

        for number in numbers:
            signal.signal(number, handle)

    def finish(self) -> NoReturn:
        """End the process now, without waiting for threads that read, and without tearing torch down."""
        if self._is_orphan and self._exchange is not None and self._exchange.name.startswith(PREFIX):
            shutil.rmtree(self._exchange, ignore_errors=True)
        os._exit(0)

    def _enforce(self) -> None:
        time.sleep(EXIT_WITHIN_SECONDS)
        self.finish()
