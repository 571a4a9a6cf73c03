"""Sample pictures of a run: what its network makes of the same image as it trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import qt
from MedMAESegmentLib.Panel.ModelPreview import isUsablePicture
from slicer.i18n import tr as _

from MedMAETrainLib.RunEntry import RunEntry

_FILE = re.compile(r"step-(\d{1,12})\.png")
MOST_HEIGHT = 170


class RunPictures:
    """The newest picture, and a slider to those before it, of the fields ``runPicture...`` of a page.

    A user who has moved the slider keeps that picture while others come.
    """

    def __init__(self, ui: Any) -> None:
        self.ui = ui
        self._entry: RunEntry | None = None
        self._files: dict[int, Path] = {}  # by step, rising
        self._chosen: int | None = None  # None: whatever is the newest
        self._shown: Any = None
        ui.runPictureSlider.valueChanged.connect(self._onSlider)

    def show(self, entry: RunEntry | None) -> None:
        """Show the pictures of a run as they are now; None: no run."""
        if entry is None or self._entry is None or entry.id != self._entry.id:
            self._chosen = None
        self._entry = entry
        self._files = picturesOf(entry.folder) if entry is not None else {}
        if self._chosen not in self._files:
            self._chosen = None
        self.ui.runPicturesWidget.visible = bool(self._files)
        if entry is not None and self._files:
            self._showCaptions(entry)
            self._showSlider()
            self._showPicture()

    def _showCaptions(self, entry: RunEntry) -> None:
        captions = ((_("Original"), _("Masked"), _("Reconstruction")) if entry.task == "pretraining"
                    else (_("Image"), _("Reference"), _("Prediction")))
        for label, text in zip((self.ui.runPictureFirstLabel, self.ui.runPictureSecondLabel,
                                self.ui.runPictureThirdLabel), captions, strict=True):
            label.text = text

    def _showSlider(self) -> None:
        slider, steps = self.ui.runPictureSlider, list(self._files)
        wasBlocked = slider.blockSignals(True)
        slider.setRange(0, len(steps) - 1)
        slider.setValue(len(steps) - 1 if self._chosen is None else steps.index(self._chosen))
        slider.blockSignals(wasBlocked)
        slider.enabled = len(steps) > 1

    def _showPicture(self) -> None:
        step = self._chosen if self._chosen is not None else next(reversed(self._files))
        file, label = self._files[step], self.ui.runPictureLabel
        self.ui.runPictureStepLabel.text = _("Step {step}").format(step=step)
        room, ratio = max(label.width, 1), label.devicePixelRatioF()
        shown = (file, room, ratio)
        if shown == self._shown:
            return
        self._shown = shown
        pixmap = qt.QPixmap(str(file)) if isUsablePicture(file) else qt.QPixmap()
        label.clear()
        if pixmap.isNull():
            label.text = _("This picture cannot be shown.")
            return
        pixmap = pixmap.scaled(round(room * ratio), round(MOST_HEIGHT * ratio), qt.Qt.KeepAspectRatio,
                               qt.Qt.SmoothTransformation)
        pixmap.setDevicePixelRatio(ratio)
        label.setPixmap(pixmap)
        # Captions stand over the three parts, however wide the picture is in its room.
        margin = max(round((room - pixmap.width() / ratio) / 2), 0)
        self.ui.runPictureCaptions.layout().setContentsMargins(margin, 0, margin, 0)

    def _onSlider(self, value: int) -> None:
        steps = list(self._files)
        self._chosen = None if value == len(steps) - 1 else steps[value]
        self._showPicture()


def picturesOf(folder: Path) -> dict[int, Path]:
    """The sample pictures of a run folder by step, in order."""
    try:
        files = list((folder / "samples").iterdir())
    except OSError:  # there are none, or they are being removed
        return {}
    found = {int(match[1]): file for file in files if (match := _FILE.fullmatch(file.name))}
    return dict(sorted(found.items()))
