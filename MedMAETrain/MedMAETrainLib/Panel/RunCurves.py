"""The chart of the runs of a page: which runs it shows, and keeping it up to date while they train."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
from slicer.i18n import tr as _

from MedMAETrainLib.Curves import Chart, comparedTables, runTables
from MedMAETrainLib.Panel.RunComparison import uniqueNames
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunHistory import RunHistory

MOST_HISTORIES = 8  # that are kept although nobody looks at them


class RunCurves:
    """Reads histories in short turns, those of the chart and of the run that is looked at, and draws the chart."""

    def __init__(self) -> None:
        self.chart = Chart(_("Training"), xTitle=_("Step"), yTitle=_("Loss, score"))
        self._histories: dict[str, RunHistory] = {}
        self._drawn: list[RunEntry] = []
        self._isDue = False

    def history(self, entry: RunEntry) -> RunHistory:
        """What a run has told, as far as it was read."""
        history = self._histories.pop(entry.id, None)
        if history is None:
            history = RunHistory(entry.folder / "progress.jsonl")
        self._histories[entry.id] = history  # the last one looked at comes last
        for key in list(self._histories)[:-MOST_HISTORIES]:
            if key not in {drawn.id for drawn in self._drawn}:
                del self._histories[key]
        return history

    def read(self, entry: RunEntry | None) -> bool:
        """Take in what a run has told, and those of the chart; whether there is more to be read at once."""
        looked = {one.id: one for one in (entry, *self._drawn) if one is not None}
        for one in looked.values():
            history = self.history(one)
            before = history.offset
            hasMore = history.read()
            self._isDue = self._isDue or history.offset != before
            if hasMore:
                return True
        return False

    def show(self, entries: Sequence[RunEntry]) -> None:
        """Draw these runs from now on, in the plot view."""
        self._drawn, self._isDue = list(entries), True
        self.update()
        self.chart.show()

    def follow(self, entry: RunEntry) -> None:
        """Draw this run instead of others, if there is a chart at all."""
        if self._drawn and [entry.id] != [drawn.id for drawn in self._drawn]:
            self._drawn, self._isDue = [entry], True

    def update(self) -> None:
        """Draw what is new; where the scene was closed meanwhile, the chart is made again."""
        isGone = self.chart.node is None
        if not self._drawn or not (self._isDue or isGone) or slicer.mrmlScene.IsClosing() or (
                slicer.mrmlScene.IsBatchProcessing()):
            return
        histories = [self.history(entry) for entry in self._drawn]
        names = uniqueNames(self._drawn)
        if len(histories) == 1:
            self.chart.title = names[0]
            tables = runTables(histories[0])
        else:
            self.chart.title = _("{count} runs").format(count=len(names))
            tables = comparedTables(dict(zip(names, histories, strict=True)))
        self.chart.update(tables)
        self._isDue = False
        if isGone:
            self.chart.show()

    def forget(self, entries: Sequence[RunEntry]) -> None:
        """Draw no runs but these, and forget the others."""
        known = {entry.id for entry in entries}
        self._histories = {key: history for key, history in self._histories.items() if key in known}
        if any(entry.id not in known for entry in self._drawn):
            self._drawn, self._isDue = [entry for entry in self._drawn if entry.id in known], True
            if not self._drawn:
                self.chart.remove()

    def cleanup(self) -> None:
        """Take the chart out of the scene."""
        self._drawn = []
        self.chart.remove()
