"""Something that is computed elsewhere and followed from here, without ever blocking the event loop."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from MedMAESegmentLib.Application import newTimer, processEvents
from MedMAESegmentLib.EngineTexts import inWordsOfThePanel
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _

ProgressCallback = Callable[[float, str], Any]


class RunFailed(RuntimeError):
    """A run ended without a result; the text is the reason that it gave and what to do about it."""

    def __init__(self, text: str) -> None:
        super().__init__(inWordsOfThePanel(text))


class RunCancelled(RuntimeError):
    """A run was cancelled on request."""


class FollowedJob(ABC):
    """What all jobs have in common; subclasses say in `poll` how the job stands, and in `cancel` how it is ended.

    ``progressed(fraction, message)`` follows the computation (fraction from 0 to 1), ``finished(job)`` comes once,
    after which `state`, `result` and `error` are final.

    >>> job.wait()              # blocks the caller, not the application
    >>> job.startFollowing()    # or: returns at once, signals come from the event loop
    """

    pollIntervalMs = 100
    endsWithCaller = True

    def __init__(self) -> None:
        self.progressed, self.finished = Signal(), Signal()
        self.state: str = "queued"
        self.result: Any = None
        self.error: Exception | None = None
        self.fraction, self.message = 0.0, ""
        self._timer: Any = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the job is over and its result was taken."""
        return self._ended

    @abstractmethod
    def poll(self) -> bool:
        """Look once, without waiting; whether the job has ended."""

    @abstractmethod
    def cancel(self) -> None:
        """End the job; nothing of its result is taken."""

    def startFollowing(self) -> None:
        """Follow from the application's event loop; does nothing where there is none (use `wait` or `poll`)."""
        if self._timer is None and not self._ended:
            try:
                self._timer = newTimer()
            except ImportError:
                return
            self._timer.setInterval(self.pollIntervalMs)
            self._timer.timeout.connect(self._onTimer)
            self._timer.start()

    def stopFollowing(self) -> None:
        """Stop following; the computation goes on."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.deleteLater()
            self._timer = None

    def wait(self) -> Any:
        """Wait for the end while the application stays alive; returns `result`.

        Raises:
            RunFailed, RunCancelled: there is no result.
        """
        try:
            while not self.poll():
                processEvents()
                time.sleep(0.02)
        except BaseException:
            if self.endsWithCaller:  # nobody is left who would take the result
                self.cancel()
            raise
        if self.error is not None:
            raise self.error
        return self.result

    def _cleanUp(self) -> None:  # noqa: B027 - most jobs have nothing to clean up
        """Called once after the end, before `finished`; for subclasses."""

    def _end(self, state: str) -> None:
        self.state, self._ended = state, True
        self.stopFollowing()
        self._cleanUp()
        self.finished.emit(self)

    def _onTimer(self) -> None:
        self.poll()

    def _progress(self, fraction: float, message: str) -> None:
        self.fraction, self.message = min(max(fraction, 0.0), 1.0), message
        self.progressed.emit(self.fraction, message)


def asSentence(text: str) -> str:
    """The text, with a full stop where it lacks an end."""
    return text if text.rstrip().endswith((".", "!", "?", ":")) else f"{text.rstrip()}."


def describe(record: dict[str, Any]) -> str:
    """One progress record in words: ``segment 3 of 10, about 20 s left``."""
    stage = str(record.get("stage", "step")).replace("_", " ")
    text = _("{stage} {step} of {total}").format(stage=f"{stage[:1].upper()}{stage[1:]}", step=record["step"],
                                                 total=record["total"])
    eta = record.get("eta_s")
    return text if eta is None else _("{progress}, about {time} left").format(progress=text, time=duration(eta))


def duration(seconds: float) -> str:
    """A duration in the unit that people use for it."""
    if seconds < 90:
        return _("{seconds} s").format(seconds=f"{max(seconds, 0):.0f}")
    if seconds < 5400:
        return _("{minutes} min").format(minutes=f"{seconds / 60:.0f}")
    return _("{hours} h").format(hours=f"{seconds / 3600:.1f}")
