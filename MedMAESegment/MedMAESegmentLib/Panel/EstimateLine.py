"""The line that tells how much memory a segmentation takes."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from MedMAESegmentLib.EstimateJob import EstimateJob
from MedMAESegmentLib.MemoryEstimate import MemoryEstimate
from MedMAESegmentLib.Signal import Signal


class EstimateLine:
    """Asks the worker and shows its answer in a label; ``measured()`` comes when less is free than is needed."""

    def __init__(self, label: qt.QLabel, begin: Callable[[], EstimateJob | None]) -> None:
        """`begin` asks; None where nobody can be asked at the moment."""
        self.measured = Signal()
        self._label, self._begin = label, begin
        self._job: EstimateJob | None = None
        self.clear()

    def clear(self) -> None:
        """Show nothing, and whatever comes of the last question is of no interest."""
        self._job = None
        self._label.visible = False

    def ask(self) -> None:
        """Ask anew."""
        self.clear()
        self._job = self._begin()
        if self._job is not None:
            self._job.finished.connect(self._onFinished)

    def _onFinished(self, job: EstimateJob) -> None:
        if job is not self._job or job.result is None:  # one that failed leaves what is known without it
            return
        self._label.text = _text(job.result)
        self._label.visible = True
        if not job.result.fits:
            self.measured.emit()


def _text(estimate: MemoryEstimate) -> str:
    from medmae.inference.memory import format_memory

    needed = format_memory(estimate.neededBytes)
    text = (_("Needs about {needed} of memory") if estimate.isMeasured else _("Needs {needed} of memory at least"))
    text = text.format(needed=needed)
    if estimate.freeBytes is None:
        return f"{text}."
    return _("{needs}; {free} are free.").format(needs=text, free=format_memory(estimate.freeBytes))
