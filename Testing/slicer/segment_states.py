"""Brings the Segment panel into each of its states, with real runs, and takes a picture of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH = 420


class SegmentStates:
    """Pictures of the panel as they are in the documentation."""

    def __init__(self, application: Any, folder: Path) -> None:
        self._application, self._folder = application, folder
        self._panel: Any = None

    def withoutModels(self) -> None:
        """A volume, but no model."""
        self._open()
        self._picture("no-model")
        self._close()

    def emptyScene(self) -> None:
        """Models, but no volume."""
        self._open()
        self._picture("empty")
        self._close()

    def volume(self, volume: Any, model: str, whole: Path) -> None:
        """Everything that happens with one volume; `whole` is the picture for the README."""
        panel = self._open()
        panel._modelSection.name = model
        panel.ui.inputVolumeSelector.setCurrentNode(volume)
        self._settle()
        self._picture("ready")
        self._options()
        self._warnings(volume)
        self._runs(whole)
        self._close()

    def batch(self) -> None:
        """The loaded volumes, one after the other."""
        panel = self._open()
        panel.ui.pages.setCurrentIndex(1)
        self._settle()
        self._picture("batch")
        panel._batchPage.ui.batchButton.click()
        self._until(lambda: not panel._batchPage.isBusy or panel._batchPage.ui.batchProgressBar.value > 450)
        self._picture("batch-running")
        self._until(lambda: not panel._batchPage.isBusy)
        self._settle()
        self._picture("batch-done")
        self._close()

    def classification(self, model: str) -> None:
        """A model that tells a class."""
        panel = self._open()
        panel._modelSection.name = model
        panel.ui.segmentButton.click()
        self._until(lambda: not panel._volumePage.isBusy)
        assert panel.ui.statusLabel.text.startswith("Done"), panel.ui.statusLabel.text
        self._picture("classification")
        self._close()

    def _options(self) -> None:
        ui = self._panel.ui
        ui.optionsCollapsibleButton.collapsed = False
        ui.mirrorCheckBox.click()
        ui.smoothCheckBox.click()
        self._picture("options")
        ui.mirrorCheckBox.click()
        ui.smoothCheckBox.click()
        ui.optionsCollapsibleButton.collapsed = True

    def _warnings(self, volume: Any) -> None:
        spacing = volume.GetSpacing()
        volume.SetSpacing(5.0, 5.0, 12.0)
        volume.SetAttribute("DICOM.Modality", "MR")
        self._settle()
        self._picture("warnings")
        volume.SetSpacing(spacing)
        volume.RemoveAttribute("DICOM.Modality")
        self._settle()

    def _runs(self, whole: Path) -> None:
        panel, ui = self._panel, self._panel.ui
        ui.segmentButton.click()
        self._until(lambda: "left" in ui.statusLabel.text or not panel._volumePage.isBusy)
        self._picture("running")
        self._picture("running", whole)
        ui.segmentButton.click()
        self._picture("cancelled")
        ui.segmentButton.click()
        self._until(lambda: "left" in ui.statusLabel.text or not panel._volumePage.isBusy)
        os.kill(panel.logic.worker.client.pid, signal.SIGKILL)
        self._until(lambda: not panel._volumePage.isBusy)
        self._picture("failed")
        ui.segmentButton.click()
        self._until(lambda: not panel._volumePage.isBusy)
        assert ui.statusLabel.text.startswith("Done"), ui.statusLabel.text
        self._picture("done")

    def _open(self) -> Any:
        self._panel = self._application.open("MedMAESegment")
        self._settle()
        return self._panel

    def _close(self) -> None:
        self._panel.cleanup()
        self._panel.parent.close()
        self._panel.parent.deleteLater()
        self._application.processDeletions()

    def _picture(self, state: str, path: Path | None = None) -> None:
        self._application.show(self._panel, WIDTH, self._application.heightOf(self._panel, WIDTH))
        file = path or self._folder / f"segment-{state}.png"
        self._application.screenshot(self._panel, file)
        Image.open(file).quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)  # a quarter of the bytes

    def _settle(self) -> None:
        """Give the timers of the panel the time that they take."""
        deadline = time.monotonic() + 0.6
        self._until(lambda: time.monotonic() > deadline)

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._application.application.processEvents()
            time.sleep(0.01)
