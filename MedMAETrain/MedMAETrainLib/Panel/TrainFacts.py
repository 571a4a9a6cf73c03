"""What the page "Train" has to find out in the background: what the images are like, and what this computer has."""

from __future__ import annotations

import threading

from MedMAESegmentLib.Application import newTimer
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.Panel.Choices import TARGET_PREFIX
from MedMAESegmentLib.Signal import Signal

from medmae.errors import BadInput
from medmae.jobs.targets import find_target
from MedMAETrainLib.Computer import Computer, computerOf, thisComputer
from MedMAETrainLib.Fingerprint import Fingerprint, readFingerprint
from MedMAETrainLib.Project import Project

LOOK_EVERY_MS = 50


class TrainFacts:
    """Reads headers in a thread, again when the cases have changed; ``changed()`` comes when more is known."""

    def __init__(self) -> None:
        self.changed = Signal()
        self.fingerprint = Fingerprint()
        self._read: tuple = ()  # of which cases
        self._task: BackgroundTask[Fingerprint] | None = None
        self._isCancelled = threading.Event()
        self._computers: dict[str, Computer] = {}
        self._asking: dict[str, BackgroundTask[Computer]] = {}
        self._timer = newTimer()
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._onTimer)

    @property
    def isComplete(self) -> bool:
        """Whether all images have been looked at."""
        return self._task is None

    def look(self, project: Project | None) -> None:
        """Look at the images of a project, where they have not been looked at."""
        key = () if project is None else (project.path, tuple((case.id, case.image) for case in project.cases))
        if key == self._read:
            return
        self._isCancelled.set()
        self._task, self._read = None, key
        if project is None or not project.cases:
            self.fingerprint = Fingerprint()
            return
        isCancelled = self._isCancelled = threading.Event()
        self._task = BackgroundTask(lambda: readFingerprint(project, isCancelled))
        self._timer.start()

    def computer(self, computeOn: str) -> Computer:
        """Where a run would compute, as far as it is known now; `computeOn` as `ComputeSelector.value` has it."""
        if computeOn.startswith(TARGET_PREFIX):
            try:
                target = find_target(computeOn.removeprefix(TARGET_PREFIX))
            except BadInput:  # the dialog of computers tells about it
                target = None
            return computerOf(target) if target is not None else Computer()
        if computeOn not in self._computers and computeOn not in self._asking:
            self._asking[computeOn] = BackgroundTask(lambda: thisComputer(computeOn))
            self._timer.start()
        return self._computers.get(computeOn, Computer())

    def forgetComputers(self) -> None:
        """Ask again what this computer has."""
        self._computers = {}

    def close(self) -> None:
        """Look no further, for good."""
        self._isCancelled.set()
        self._timer.stop()

    def _onTimer(self) -> None:
        hasChanged = False
        if self._task is not None and self._task.isOver:
            self.fingerprint, self._task, hasChanged = self._task.result(), None, True
        for computeOn, task in list(self._asking.items()):
            if task.isOver:
                self._computers[computeOn] = task.result()
                del self._asking[computeOn]
                hasChanged = True
        if self._task is None and not self._asking:
            self._timer.stop()
        if hasChanged:
            self.changed.emit()
