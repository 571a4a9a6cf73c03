"""What pictures of panels have in common: opening, waiting, and taking the picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

WIDTH = 420


class PanelStates:
    """Takes pictures of one module's panel and of its dialogs."""

    def __init__(self, application: Any, folder: Path, module: str, prefix: str) -> None:
        """`application` is a `PanelApplication`; pictures go to `folder` and are called `prefix`-STATE.png."""
        self._application, self._folder, self._module, self._prefix = application, folder, module, prefix
        self._panel: Any = None

    def _open(self) -> Any:
        self._panel = self._application.open(self._module)
        self._settle()
        return self._panel

    def _close(self) -> None:
        self._panel.cleanup()
        self._panel.parent.close()
        self._panel.parent.deleteLater()
        self._application.processDeletions()

    def _picture(self, state: str, path: Path | None = None, more: int = 0) -> None:
        """The panel as it is, as high as it must be, and `more` for what grows."""
        self._application.show(self._panel, WIDTH, self._application.heightOf(self._panel, WIDTH) + more)
        self._take(self._panel, path or self._file(state))

    def _pictureOf(self, dialog: Any, state: str) -> None:
        """A dialog, or another window of its own."""
        dialog.show()
        self._settle()
        self._take(SimpleNamespace(parent=dialog), self._file(state))

    def _file(self, state: str) -> Path:
        return self._folder / f"{self._prefix}-{state}.png"

    def _take(self, part: Any, file: Path) -> None:
        self._application.screenshot(part, file)
        shrink(file)

    def _settle(self, seconds: float = 0.6) -> None:
        """Give the timers of the panel the time that they take."""
        deadline = time.monotonic() + seconds
        self._until(lambda: time.monotonic() > deadline)

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._application.application.processEvents()
            time.sleep(0.01)


def shrink(file: Path) -> None:
    """Save a picture with 256 colours: a quarter of the bytes."""
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
