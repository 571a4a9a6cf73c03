"""What a run that predicts and ranks finishes, taken into the project case by case while it is still at work."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import read_json
from medmae.inference.manifest import MANIFEST, read_manifest
from MedMAETrainLib.PredictionFile import (
    discardPrediction,
    mayPredict,
    removePredictions,
    takeThumbnail,
    writePrediction,
)
from MedMAETrainLib.PredictionLabels import LabelMatch, matchLabels
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectFolder import CASES_FOLDER, ProjectFolder
from MedMAETrainLib.RankingFile import CasePrediction, CaseScore, NextData, RankingData, readNext, writeNext

ID_PREFIX = "project-"  # of cases in runs: ids that look like the neutral ones of jobs would be taken for these
SAVE_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class LoopResult:
    """What came of predicting and ranking.

    done - The cases that were predicted or ranked, by their ids.
    failed - Those that could not be: (id, why).
    leftAlone - Those that were annotated or removed meanwhile.
    notes - What is to be told about labels.
    """

    done: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    leftAlone: tuple[str, ...]
    notes: tuple[str, ...]


class PredictionWork:
    """Takes label maps and scores of cases as they come; nothing that a person has drawn is replaced by them.

    Label maps are read and written in a thread, one at a time; the project is changed here alone.
    """

    def __init__(self, project: ProjectFolder, model: str, info: Any, cases: Sequence[ProjectCase], *,
                 ranking: RankingData | None, labels: bool) -> None:
        """`ranking`: without scores, how `cases` are ranked, None: they are not; `labels`: whether they are predicted.

        Raises:
            ValueError: the labels of the model are none of the project.
        """
        self.project, self.model, self.info, self.cases = project, model, info, list(cases)
        self.ranking, self.wantsLabels = ranking, labels
        self.notes = matchLabels(model, info.labels, project.labels).notes if labels else ()
        self.failed: dict[str, str] = {}
        self._done: dict[str, None] = {}
        self._leftAlone: dict[str, None] = {}
        self._asked, self._seen = {case.id for case in self.cases}, set[str]()
        self._waiting: deque[tuple[str, Path]] = deque()
        self._task: tuple[str, Path, LabelMatch, BackgroundTask[ProjectCase]] | None = None
        self._scores: dict[str, float] = {}
        self._predictions: dict[str, CasePrediction] = {}
        self._saved = time.monotonic()

    @property
    def result(self) -> LoopResult:
        """What has come of it so far."""
        return LoopResult(tuple(self._done), tuple(self.failed.items()), tuple(self._leftAlone), self.notes)

    def read(self, out: Path) -> None:
        """Look what is new among the results in `out`, which may come from another computer.

        Raises:
            BadInput: they name a file that is none of them.
        """
        _header, records = read_manifest(out / MANIFEST)
        for name, record in records.items():
            if name in self._seen:
                continue
            self._seen.add(name)
            identity, result = name.removeprefix(ID_PREFIX), record["result"]
            if identity not in self._asked:
                continue
            score, output = result.get("score"), result.get("output")
            if self.ranking is not None:
                if not isinstance(score, (int, float)) or not math.isfinite(score):
                    self.failed[identity] = _("The result makes no sense.")
                    continue
                self._scores[identity] = float(score)
                self._done[identity] = None
            if self.wantsLabels and output is not None:
                self._waiting.append((identity, _within(out, output)))

    def readFailures(self, file: Path) -> None:
        """Take in which cases failed, from the result.json of a run, where there is one."""
        if not file.is_file():
            return
        of = {str(self.project.file(case.image)): case.id for case in self.cases}
        result = read_json(file, "result")
        failures = result.get("failed") if isinstance(result, dict) else None
        for failure in failures if isinstance(failures, list) else ():
            if isinstance(failure, dict):
                image = str(failure.get("image"))
                self.failed[of.get(image, image)] = str(failure.get("reason"))

    def poll(self) -> bool:
        """Go on; True once everything that was read is in the project. Quick.

        Raises:
            ValueError, BadInput, OSError: the project was closed, or cannot be written.
        """
        if not self.project.isOpen:
            raise ValueError(_("The project {project} was closed. Open it, and start again: what is done is "
                               "kept.").format(project=self.project.name))
        if self._task is not None and self._task[3].isOver:
            self._take()
            return False  # that was enough for one turn
        if self._task is None and self._waiting:
            self._begin(*self._waiting.popleft())
        isIdle = self._task is None and not self._waiting
        if isIdle or time.monotonic() - self._saved > SAVE_EVERY_SECONDS:
            self.save()
        return isIdle

    def save(self) -> None:
        """Write down who has predicted and ranked what."""
        self._saved = time.monotonic()
        if not self._scores and not self._predictions:
            return
        data = _readOrNew(self.project.path)
        known = {case.id for case in self.project.cases}
        predictions = {one.case: one for one in data.predictions if one.case in known} | self._predictions
        writeNext(self.project.path, NextData(tuple(predictions.values()), self._mergedRanking(data.ranking)))
        self._scores, self._predictions = {}, {}
        self.project.changed.emit()

    def _mergedRanking(self, before: RankingData | None) -> RankingData | None:
        if self.ranking is None or not self._scores:
            return before
        earlier = before.scores if before is not None and before.isLike(self.ranking) else ()
        scores = {**{one.case: one.score for one in earlier}, **self._scores}
        return dataclasses.replace(self.ranking, created=datetime.now(UTC).isoformat(timespec="seconds"),
                                   scores=tuple(CaseScore(case, score) for case, score in scores.items()))

    def _case(self, identity: str) -> ProjectCase | None:
        """The case as it is now, where a prediction may be put; else it is left alone."""
        case = next((case for case in self.project.cases if case.id == identity), None)
        if case is not None and mayPredict(case):
            return case
        self._leftAlone[identity] = None
        self._done.pop(identity, None)
        return None

    def _begin(self, identity: str, labels: Path) -> None:
        case = self._case(identity)
        if case is None:
            return
        try:
            match = matchLabels(self.model, self.info.labels, self.project.labels)
        except ValueError as error:  # the labels of the project were changed meanwhile
            self.failed[identity] = str(error)
            return
        folder, image = self._folder(identity), self.project.file(case.image)
        self._task = identity, labels, match, BackgroundTask(
            lambda: writePrediction(folder, case, image, labels, match))

    def _take(self) -> None:
        assert self._task is not None
        identity, labels, match, task = self._task
        self._task = None
        try:
            predicted = task.result()
        except (BadInput, OSError) as error:
            self.failed[identity] = str(error)
            return
        folder, case = self._folder(identity), self._case(identity)
        if case is None:
            discardPrediction(folder, predicted)
            return
        if matchLabels(self.model, self.info.labels, self.project.labels) != match:  # renamed in this moment
            self._waiting.appendleft((identity, labels))
            return
        case = dataclasses.replace(case, **{name: getattr(predicted, name) for name in (
            "state", "segmentation", "label", "segments", "notes")})
        takeThumbnail(folder, case)
        before = self.project.case(case)
        self.project.putCases([case], match.labels)
        removePredictions(folder, [case.segmentation, case.label, before.segmentation, before.label])
        assert case.segmentation is not None
        self._predictions[identity] = CasePrediction(identity, self.model, self.info.weights_sha256, case.segmentation)
        self._done[identity] = None

    def _folder(self, identity: str) -> Path:
        return self.project.path / CASES_FOLDER / identity


def _within(folder: Path, path: object) -> Path:
    """The path of a file in a folder, as a run has named it."""
    if not isinstance(path, str) or "\0" in path or not Path(path).resolve().is_relative_to(folder.resolve()):
        raise BadInput(_("The results name {path}, which is none of their files. They were not taken.").format(
            path=path))
    return Path(path)


def _readOrNew(folder: Path) -> NextData:
    """What is remembered; where that is damaged, it is made anew."""
    try:
        return readNext(folder)
    except BadInput:
        return NextData()
