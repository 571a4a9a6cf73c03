"""What the page "Next case" says."""

from __future__ import annotations

from datetime import datetime

from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, asSentence
from slicer.i18n import tr as _

from MedMAETrainLib.PredictionFile import mayPredict
from MedMAETrainLib.PredictionWork import LoopResult
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.Ranking import Ranking

_MOST_NAMED = 5


def strategyName(strategy: str) -> str:
    """What an order is called in the list."""
    return {"entropy": _("Where the model is unsure"), "random": _("At random")}[strategy]


def strategyText(strategy: str) -> str:
    """What an order means."""
    return {"entropy": _("Cases come first whose predictions differ most when the image is mirrored, or are undecided "
                         "between labels."),
            "random": _("Every case has the same chance. What any other order has to beat.")}[strategy]


def hintText(hasProject: bool, hasCases: bool, hasModel: bool, hasOwnModel: bool, left: int) -> str:
    """What the user can do first; empty where everything is there."""
    if not hasProject:
        return _("Create or open a project first.")
    if not hasCases:
        return _("The project has no images yet. Add some in the tab Cases.")
    if not left:
        return _("Nothing is left to annotate: every case for training is annotated. Add images in the tab Cases to go "
                 "on.")
    if not hasModel:
        return _("There is no model yet that could draw on the other {count} cases. Annotate some cases in the tab "
                 "Cases, press Finetune in the tab Train, and come back when the model is ready.").format(count=left)
    if not hasOwnModel:
        return _("The project has no model of its own yet: train one, or let another model begin whose labels have the "
                 "same names.")
    return ""


def stateText(case: ProjectCase) -> str:
    """How far a case is that is not annotated yet."""
    if case.state == "predicted":  # a model may be sure, and wrong, that there is nothing: its score is 0
        return _("predicted") if case.voxels else _("found nothing")
    return _("not annotated") if mayPredict(case) else _("partly drawn")


def caseName(case: ProjectCase) -> str:
    """What the user knows a case by."""
    return case.source.name or case.id


def rankingText(ranking: Ranking) -> str:
    """Who made an order, and when."""
    try:
        made = datetime.fromisoformat(ranking.created).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        made = ranking.created
    return _("Order by {model}, {strategy}, {date}.").format(
        model=ranking.model, strategy=strategyName(ranking.strategy).lower(), date=made)


def staleText(ranking: Ranking) -> str:
    """Why an order is out of date; empty where it is not."""
    return " ".join([*ranking.stale, _("Predict and rank again.")]) if ranking.stale else ""


def endText(job: FollowedJob, result: LoopResult, total: int) -> str:
    """How predicting and ranking `total` cases has ended. What is done is kept in any case."""
    done = _("{count} of {total} cases").format(count=len(result.done), total=total)
    if isinstance(job.error, RunCancelled):
        parts = [_("Cancelled. Done and kept: {cases}. Press again to go on with the rest.").format(cases=done)]
    elif job.error is not None:
        parts = [asSentence(str(job.error))]
        if result.done:
            parts.append(_("Done before, and kept: {cases}.").format(cases=done))
    else:
        parts = [_("Done: {cases}.").format(cases=done)]
    parts += result.notes
    if result.leftAlone:
        parts.append(_("Annotated or removed meanwhile, and left alone: {cases}.").format(
            cases=", ".join(result.leftAlone[:_MOST_NAMED]) + ("…" if len(result.leftAlone) > _MOST_NAMED else "")))
    lines = [_("{case} failed: {reason}").format(case=case, reason=reason)
             for case, reason in result.failed[:_MOST_NAMED]]
    if len(result.failed) > _MOST_NAMED:
        lines.append(_("{count} more failed.").format(count=len(result.failed) - _MOST_NAMED))
    return "\n".join([" ".join(parts), *(lines if job.error is None else [])])


def shortened(text: str, most: int = 30) -> str:
    """A name that may be long, for a button."""
    return text if len(text) <= most else f"{text[:most // 2]}…{text[-(most // 2 - 1):]}"
