"""Work that would hold the event loop, done in a thread while the application stays alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from MedMAESegmentLib.Application import processEvents

Result = TypeVar("Result")


def inBackground(work: Callable[[], Result], between: Callable[[], None] = processEvents) -> Result:
    """Call `work` in a thread and `between` meanwhile; returns what `work` returns.

    `work` must touch neither the scene nor a widget. It has ended when this returns or raises, whatever `between` does.

    Raises:
        Exception: of `between`, else of `work`.
    """
    task = BackgroundTask(work)
    try:
        while not task.wait(0.01):
            between()
    finally:
        task.wait()
    return task.result()


class BackgroundTask(Generic[Result]):
    """A function that runs in a thread of its own from now on.

    >>> task = BackgroundTask(lambda: slow())
    >>> task.isOver, task.result()
    """

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._value: Result | None = None
        self._error: BaseException | None = None
        # A daemon: a connection that hangs must not keep the application from quitting.
        self._thread = threading.Thread(target=self._run, name="MedMAE background", daemon=True)
        self._thread.start()

    @property
    def isOver(self) -> bool:
        """Whether the function has returned or raised."""
        return not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most `seconds`; whether it has come. Blocks the caller."""
        self._thread.join(seconds)
        return self.isOver

    def result(self) -> Result:
        """What the function returned, once it is over.

        Raises:
            Exception: what the function raised.
        """
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for the result
            self._error = error
