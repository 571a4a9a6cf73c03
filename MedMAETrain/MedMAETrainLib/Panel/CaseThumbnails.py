"""Pictures of cases that have none are drawn one after the other in a thread; nobody waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.Signal import Signal

from medmae.errors import BadInput
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectCase

LOOK_EVERY_MS = 50
_log = logging.getLogger(__name__)


class CaseThumbnails:
    """``made(caseId)`` comes when there is a new picture. Images that cannot be drawn are tried once in a sitting."""

    def __init__(self, project: Callable[[], Project | None]) -> None:
        self.made = Signal()
        self._project = project
        self._waiting: dict[str, ProjectCase] = {}
        self._tried: set[tuple[str, str]] = set()
        self._task: BackgroundTask[object] | None = None
        self._case: ProjectCase | None = None
        self._timer = newTimer()
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._onTimer)

    def wish(self, cases: Iterable[ProjectCase]) -> None:
        """Draw these as soon as possible, in this order, and none that were wished for before."""
        project = self._project()
        uid = project.uid if project is not None else ""
        self._waiting = {case.id: case for case in cases if (uid, case.id) not in self._tried}
        if self._waiting:
            self._timer.start()

    def stop(self) -> None:
        """Begin no more pictures; the one that is being drawn is finished by its thread."""
        self._waiting = {}
        self._timer.stop()

    def _onTimer(self) -> None:
        if self._task is not None:
            if not self._task.isOver:
                return
            self._end(self._task)
        project = self._project()
        if not self._waiting or project is None or not project.isOpen:
            self.stop()
            return
        identity = next(iter(self._waiting))
        self._case = self._waiting.pop(identity)
        self._tried.add((project.uid, identity))
        self._task = BackgroundTask(project.thumbnailWriter(self._case))

    def _end(self, task: BackgroundTask[object]) -> None:
        self._task = None
        assert self._case is not None
        try:
            task.result()
        except (BadInput, OSError, ValueError) as error:  # a case can do without a picture; opening it tells why
            _log.info("%s has no picture: %s", self._case.id, error)
        else:
            self.made.emit(self._case.id)
