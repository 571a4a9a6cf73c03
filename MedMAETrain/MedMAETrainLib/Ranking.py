"""The cases that nobody has annotated yet, the most useful one first."""

from __future__ import annotations

from dataclasses import dataclass

from MedMAESegmentLib.Translation import tr as _

from MedMAETrainLib.PredictionFile import isPrediction
from MedMAETrainLib.ProjectCase import TRUTH, ProjectCase, isTraining
from MedMAETrainLib.ProjectFolder import ProjectFolder
from MedMAETrainLib.RankingFile import NextData, RankingData


@dataclass(frozen=True)
class RankedCase:
    """A case and its place.

    position - From 1, the most useful one.
    score - Higher is more useful; comparable within one order only.
    share - Where the score lies between the lowest (0) and the highest (1) of the order.
    """

    position: int
    case: ProjectCase
    score: float
    share: float


@dataclass(frozen=True)
class Ranking:
    """An order of cases.

    model, strategy, created - Who made it, how and when.
    cases - Those that are not annotated yet.
    unranked - Those that are not annotated and have no place in it.
    stale - Why it is not the order that would be made now; empty: it is.
    """

    model: str
    strategy: str
    created: str
    cases: tuple[RankedCase, ...]
    unranked: tuple[ProjectCase, ...]
    stale: tuple[str, ...]


def candidates(project: ProjectFolder) -> list[ProjectCase]:
    """The cases among which to choose: nobody has annotated them, and they are not put aside for validation or test.

    What was corrected from the prediction of a model favours that model, so that scores on it would be too good.
    """
    return [case for case in project.cases if case.state not in TRUTH and isTraining(case.role)]


def rankingOf(project: ProjectFolder, data: NextData, newestModel: str | None) -> Ranking | None:
    """The order that a project remembers, as it is now; None: there is none."""
    if data.ranking is None:
        return None
    from medmae.active_learning.ordering import in_order

    scores = {one.case: one.score for one in data.ranking.scores}
    open_ = candidates(project)
    ordered = in_order([case for case in open_ if case.id in scores], lambda case: scores[case.id],
                       lambda case: case.subject)
    known = [scores[case.id] for case in ordered]
    low, high = min(known, default=0.0), max(known, default=0.0)
    cases = tuple(RankedCase(position, case, scores[case.id], (scores[case.id] - low) / (high - low) if high > low
                             else 1.0) for position, case in enumerate(ordered, 1))
    unranked = tuple(case for case in open_ if case.id not in scores)
    return Ranking(data.ranking.model, data.ranking.strategy, data.ranking.created, cases, unranked,
                   _stale(data.ranking, newestModel, len(unranked)))


def _stale(ranking: RankingData, newestModel: str | None, unranked: int) -> tuple[str, ...]:
    reasons = []
    if newestModel is not None and newestModel != ranking.model:
        reasons.append(_("There is a newer model, {model}: it is unsure about other cases.").format(model=newestModel))
    if unranked:
        reasons.append(_("One case is not in the order yet.") if unranked == 1 else
                       _("{count} cases are not in the order yet.").format(count=unranked))
    return tuple(reasons)


def predictedBy(project: ProjectFolder, data: NextData, weights: str) -> set[str]:
    """The cases whose prediction, as it is now, a model has drawn."""
    files = {one.case: one.file for one in data.predictions if one.weights == weights}
    return {case.id for case in project.cases if isPrediction(case) and files.get(case.id) == case.segmentation}
