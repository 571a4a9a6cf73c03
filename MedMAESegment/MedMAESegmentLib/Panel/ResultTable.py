"""The table of what was found: segments with their sizes, or classes with their probabilities."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedMAESegmentLib.ClassificationJob import Classification
from MedMAESegmentLib.SegmentSummary import SegmentSummary

_SWATCH = 12
_NUMBER = qt.Qt.AlignRight | qt.Qt.AlignVCenter


class ResultTable:
    """Fills a QTableWidget; hidden while there is nothing to show."""

    def __init__(self, table: qt.QTableWidget) -> None:
        self._table = table
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        table.horizontalHeader().setStretchLastSection(False)
        table.horizontalHeader().setDefaultAlignment(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._table.setRowCount(0)
        self._table.visible = False

    def showSegments(self, summaries: Sequence[SegmentSummary],
                     segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Show segments in their order; the node, while it is there, tells names and colours."""
        rows = []
        segments = _segmentsOf(segmentationNode, [summary.name for summary in summaries])
        for summary, segment in zip(summaries, segments, strict=True):
            confidence = _("unknown") if summary.confidence is None else _percent(summary.confidence)
            rows.append((segment.GetName() if segment is not None else summary.name,
                         _millilitres(summary), confidence if summary.voxels else ""))
        self._show([_("Segment"), _("Volume"), _("Confidence")], rows)
        self._table.horizontalHeaderItem(2).setToolTip(_("Mean probability that the model gives the segment."))
        for row, segment in enumerate(segments):
            if segment is not None:
                self._table.item(row, 0).setIcon(_swatch(segment.GetColor()))

    def showClasses(self, result: Classification) -> None:
        """Show classes, the most likely first."""
        ordered = sorted(result.probabilities.items(), key=lambda item: -item[1])
        hasSlices = bool(result.decidingSlices)
        rows = [(name, _percent(probability), _slice(result, name)) for name, probability in ordered]
        self._show([_("Class"), _("Probability"), _("Deciding slice")], rows)
        self._table.setColumnHidden(2, not hasSlices)
        self._table.horizontalHeaderItem(1).setToolTip(
            _("Calibrated on cases with a known answer.") if result.calibrated else
            _("Not calibrated: good for comparing classes, not to be read as how often it is true."))

    def _show(self, titles: list[str], rows: Sequence[tuple[str, ...]]) -> None:
        table = self._table
        table.setColumnCount(len(titles))
        table.setColumnHidden(2, False)
        table.setHorizontalHeaderLabels(titles)
        for column in range(1, len(titles)):
            table.horizontalHeaderItem(column).setTextAlignment(_NUMBER)
        table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(_NUMBER)
                table.setItem(row, column, item)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.visible = bool(rows)


def _segmentsOf(segmentationNode: slicer.vtkMRMLSegmentationNode | None, names: Sequence[str]) -> list[Any]:
    """For each name the segment made last of those called so, or so with a number behind it; None: there is none."""
    segmentation = segmentationNode.GetSegmentation() if segmentationNode is not None else slicer.vtkSegmentation()
    made = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments() - 1, -1, -1)]

    def segmentOf(name: str) -> Any:
        numbered = re.compile(re.escape(name) + r" \d+")
        return next((segment for segment in made if segment.GetName() == name
                     or numbered.fullmatch(segment.GetName()) and segment.GetName() not in names), None)

    return [segmentOf(name) for name in names]


def _swatch(color: Sequence[float]) -> qt.QIcon:
    pixmap = qt.QPixmap(_SWATCH, _SWATCH)
    pixmap.fill(qt.QColor(*(round(255 * part) for part in color)))
    return qt.QIcon(pixmap)


def _millilitres(summary: SegmentSummary) -> str:
    if not summary.voxels:
        return _("not found")
    if summary.ml is None:  # the image states no spacing
        return _("{count} voxels").format(count=summary.voxels)
    if summary.ml < 0.01:
        return _("less than 0.01 ml")
    digits = 0 if summary.ml >= 100 else 1 if summary.ml >= 10 else 2
    return _("{size} ml").format(size=f"{summary.ml:.{digits}f}")


def _percent(fraction: float) -> str:
    return _("{value} %").format(value=f"{100 * fraction:.0f}" if fraction < 0.995 else f"{100 * fraction:.1f}")


def _slice(result: Classification, name: str) -> str:
    axis, index = result.decidingSlices.get(name, ("", ""))
    return f"{axis} {index}".strip()
