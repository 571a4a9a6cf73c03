"""Signals in plain Python: defining Qt signals in Python is not possible under PythonQt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Signal:
    """A list of callbacks that are called in the order in which they were connected.

    >>> progressed = Signal()
    >>> progressed.connect(print)
    >>> progressed.emit("half done")
    half done
    """

    def __init__(self) -> None:
        self._callbacks: list[Callable[..., Any]] = []

    def connect(self, callback: Callable[..., Any]) -> None:
        """Call `callback` on every later emit; connecting it twice changes nothing."""
        if callback not in self._callbacks:
            self._callbacks.append(callback)

    def disconnect(self, callback: Callable[..., Any]) -> None:
        """Forget `callback`.

        Raises:
            ValueError: it was not connected.
        """
        self._callbacks.remove(callback)

    def emit(self, *arguments: Any) -> None:
        """Call every connected callback with `arguments`."""
        for callback in list(self._callbacks):
            callback(*arguments)
