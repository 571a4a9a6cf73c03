"""The part below the table of runs: how the selected run stands, what it does to pictures, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from slicer.i18n import tr as _

from medmae.run_folder import RunFolder
from MedMAETrainLib.Panel.RunCases import RunCases
from MedMAETrainLib.Panel.RunPictures import RunPictures
from MedMAETrainLib.Panel.RunTexts import lossText, placeText, scoreText, statusText, taskText
from MedMAETrainLib.Project import Project
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunHistory import RunHistory
from MedMAETrainLib.RunScores import RunScores, scoresOf


class RunDetails:
    """Shows one run in the fields of a page; ``openCase(caseId)`` is `cases.opened`."""

    def __init__(self, ui: Any, project: Callable[[], Project | None]) -> None:
        self.ui = ui
        self.pictures = RunPictures(ui)
        self.cases = RunCases(ui, project)
        self._scored: Any = None
        self._scores: RunScores | None = None

    def show(self, entries: Sequence[RunEntry], history: RunHistory | None) -> None:
        """Show the selected runs: of one everything, of several only that there are several."""
        entry = entries[0] if len(entries) == 1 else None
        self.ui.runDetails.visible = bool(entries)
        self.ui.runUseButton.visible = entry is not None and entry.model is not None
        if entry is None:
            self._tell(_("{count} runs are selected").format(count=len(entries)), _(
                "Compare shows their curves in one chart, and in what they differ."), "")
        else:
            place = _("{task} on {place}").format(task=taskText(entry), place=placeText(entry))
            told = [text for text in (scoreText(history), lossText(history)) if text] if history is not None else []
            self._tell(entry.name, "\n".join(filter(None, (place, statusText(entry)))), "\n".join(told))
        self.pictures.show(entry)
        self.cases.show(self._scoresOf(entry, history), entry.project if entry is not None else None)

    def _tell(self, name: str, status: str, score: str) -> None:
        self.ui.runNameLabel.text, self.ui.runNameLabel.toolTip = name, asPlainHtml(name)
        self.ui.runStatusLabel.text = status
        self.ui.runScoreLabel.text, self.ui.runScoreLabel.visible = score, bool(score)

    def _scoresOf(self, entry: RunEntry | None, history: RunHistory | None) -> RunScores | None:
        """The scores of a run, read again when there may be others."""
        if entry is None or history is None:
            return None
        scored = (entry.id, entry.status.state, entry.model, history.validation)
        if scored != self._scored:
            self._scored, self._scores = scored, scoresOf(RunFolder(entry.folder), history.validation)
        return self._scores
