"""Buttons that start and then cancel: a double click must not do both."""

from __future__ import annotations

import qt


class SingleClicks(qt.QObject):
    """Takes the second click of a double click away from buttons; whoever makes it keeps it as long as they live.

    Only those of a mouse: two presses of a key, or two calls of ``click()``, are meant.

    >>> self._singleClicks = SingleClicks(ui.segmentButton)
    """

    def __init__(self, *buttons: qt.QAbstractButton) -> None:
        super().__init__()
        for button in buttons:
            button.installEventFilter(self)

    def eventFilter(self, button: qt.QObject, event: qt.QEvent) -> bool:
        """Whether the event goes no further; called by Qt."""
        return event.type() == qt.QEvent.MouseButtonDblClick
