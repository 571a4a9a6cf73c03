"""Brings the Segment panel into each of its states, with real runs, and takes a picture of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from panel_states import PanelStates


class SegmentStates(PanelStates):
    """Pictures of the panel as they are in the documentation."""

    def __init__(self, application: Any, folder: Path) -> None:
        super().__init__(application, folder, "MedMAESegment", "segment")

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
