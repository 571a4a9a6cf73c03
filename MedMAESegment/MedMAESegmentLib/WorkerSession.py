"""The warm worker of this application: one process that keeps models loaded, for all segmentations."""

from __future__ import annotations

import atexit
import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer

from medmae.worker.child import LOG_FILE
from medmae.worker.client import Request, WorkerClient
from MedMAESegmentLib.Application import newTemporaryFolder, newTimer
from MedMAESegmentLib.Interpreter import chosenInterpreter

_LOG_CHARACTERS = 20000


class WorkerSession:
    """Starts the worker at the first request, and anew after it died; ends it with the application.

    >>> session = WorkerSession()
    >>> request = session.client.segment(...)
    >>> session.poll()      # from a timer
    """

    pollIntervalMs = 100

    def __init__(self, command: Sequence[str] | None = None) -> None:
        """`command` starts the worker; None: the chosen Python with ``-m medmae.worker``."""
        self.command = command
        self._client: WorkerClient | None = None
        self._folder: Path | None = None
        self._abandoned: list[tuple[Request, list[Mapping[str, Any]]]] = []
        self._timer: Any = None
        self._maps = 0

    @property
    def client(self) -> WorkerClient:
        """Talks to the worker; starts nothing before the first request."""
        if self._client is None:
            self._folder = newTemporaryFolder()
            python = chosenInterpreter()
            self._client = WorkerClient(self.command or [python.executable, "-m", "medmae.worker"],
                                        None if self.command else python.environment(), self._folder)
        return self._client

    @property
    def starts(self) -> int:
        """How many worker processes were started."""
        return self._client.starts if self._client is not None else 0

    @property
    def isBusy(self) -> bool:
        """Whether a request is under way."""
        return self._client is not None and self._client.is_busy

    def poll(self) -> None:
        """Take in what the worker has said; never waits."""
        if self._client is None:
            return
        self._client.poll()
        for entry in [entry for entry in self._abandoned if entry[0].is_over]:
            request, images = entry
            self._client.release(request, *images)
            _removeMaps(request)
            self._abandoned.remove(entry)

    def abandon(self, request: Request, images: Sequence[Mapping[str, Any]]) -> None:
        """Cancel a request whose result nobody wants; its voxels go once the worker has let go of them."""
        if self._client is None:  # closed meanwhile, with all voxels
            return
        self._abandoned.append((request, list(images)))
        self._client.cancel(request)
        self.poll()
        self._followAbandoned()

    def mapsPath(self) -> Path:
        """A path without ending for the files of one request; they go with its voxels."""
        self._maps += 1
        return self.client.exchange.folder / f"maps-{self._maps}"

    def log(self) -> str:
        """The end of what the worker has written into its log."""
        if self._client is None:
            return ""
        file = self._client.exchange.folder / LOG_FILE
        return file.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:] if file.exists() else ""

    def close(self) -> None:
        """End the worker and delete all voxels; the next request starts a new one."""
        client, self._client = self._client, None
        self._stopTimer()
        self._abandoned.clear()
        if client is not None:
            client.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _followAbandoned(self) -> None:
        """A worker that does not obey is replaced by the client, which has to be asked for that: by a timer."""
        if self._timer is None and self._abandoned:
            try:
                self._timer = newTimer()
            except ImportError:
                return
            self._timer.setInterval(self.pollIntervalMs)
            self._timer.timeout.connect(self._onTimer)
            self._timer.start()

    def _onTimer(self) -> None:
        self.poll()
        if not self._abandoned:
            self._stopTimer()

    def _stopTimer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.deleteLater()
            self._timer = None


def _removeMaps(request: Request) -> None:
    output = request.message.get("output")
    for file in Path(output).parent.glob(f"{Path(output).name}.*") if output else ():
        file.unlink(missing_ok=True)


@functools.cache
def applicationWorker() -> WorkerSession:
    """The one session that everything in this application shares."""
    session = WorkerSession()
    atexit.register(session.close)
    connect = getattr(getattr(slicer, "app", None), "connect", None)
    if connect is not None:  # before Qt and the Python interpreter are taken down
        connect("aboutToQuit()", session.close)
    return session
