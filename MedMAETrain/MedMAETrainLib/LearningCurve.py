"""How good models are by the number of annotated cases that they have seen, and whether more are likely to help.

Mathematics and words alone: what is on disk is read by `LearningPoints`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from MedMAESegmentLib.Translation import tr as _

WORTH = 0.01  # of a score from 0 to 1 for twice the cases: less is not worth the work
LEAST_SUBJECTS = 6  # an interval of fewer is much too narrow to be believed
LIKELY, UNLIKELY, UNKNOWN = "likely", "unlikely", "unknown"


@dataclass(frozen=True)
class ScoredCase:
    """A case on which a model was measured.

    case - Its id.
    subject - Whom it shows.
    reference - Tells the annotation against which the model was measured apart from others of the case; "": unknown.
    values - The score of each label from 0 to 1; None: the case does not show the label.
    """

    case: str
    subject: str
    reference: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class CurvePoint:
    """A model of the project and how good it is.

    model - Its name.
    created - When it was trained, ISO 8601.
    cases - How many annotated cases it has learned from.
    score - Mean Dice (segmentation) or part of right answers (classification), from 0 to 1; None: never measured.
    how - "validation" (cases for validation), "cross-validation" (each case by a model that has not seen it) or "".
    task, labels - What it was trained for.
    encoder - What training started from.
    settings - What else of the training makes a difference.
    scored - The cases on which it was measured; empty: it is not known which.
    isSelected - Whether the same cases have decided which weights were kept, which makes the score a little too good.
    """

    model: str
    created: str
    cases: int
    score: float | None
    how: str = ""
    task: str = "segmentation"
    labels: tuple[str, ...] = ()
    encoder: str = "none"
    settings: tuple[str, ...] = ()
    scored: tuple[ScoredCase, ...] = ()
    isSelected: bool = False

    @property
    def kind(self) -> tuple:
        """Points of another kind measure something else."""
        return self.task, tuple(sorted(self.labels)), self.how


@dataclass(frozen=True)
class CurveSeries:
    """Points that may be joined by a line: the same task, labels and scored cases; by number of cases."""

    points: tuple[CurvePoint, ...]

    @property
    def title(self) -> str:
        """What was measured."""
        first = self.points[0]
        figure = _("Dice") if first.task == "segmentation" else _("Right answers")
        if not first.scored:
            return _("{figure}, on unknown cases ({model})").format(figure=figure, model=first.model)
        text = (_("{figure}, {count} cases by cross-validation") if first.how == "cross-validation"
                else _("{figure}, {count} cases for validation"))
        return text.format(figure=figure, count=len(first.scored))


@dataclass(frozen=True)
class Gain:
    """What twice the annotated cases have brought, measured on cases that two models have in common.

    perDoubling - Of the score; for other ratios of the numbers of cases divided by the logarithm of the ratio.
    interval - 95 %, drawing subjects again and again; None: fewer than two.
    """

    before: CurvePoint
    after: CurvePoint
    perDoubling: float
    interval: tuple[float, float] | None
    cases: int
    subjects: int


@dataclass(frozen=True)
class Advice:
    """Whether more annotated cases are likely to help: "likely", "unlikely" or "unknown"; in words, and why."""

    verdict: str
    text: str
    reason: str
    gain: Gain | None = None


@dataclass(frozen=True)
class LearningCurve:
    """The models of a project by what they have learned from.

    points - Those with a score, by number of cases.
    series - The same, in lines of what can be compared.
    problems - Models of which no score can be told, and why.
    """

    points: tuple[CurvePoint, ...]
    series: tuple[CurveSeries, ...]
    advice: Advice
    problems: tuple[str, ...] = field(default=())


def curveOf(points: Sequence[CurvePoint], problems: Sequence[str] = ()) -> LearningCurve:
    """The curve of some models, in any order."""
    known = sorted((point for point in points if point.score is not None), key=_order)
    unmeasured = [_("{model} was not measured: no case of its training was for validation.").format(model=point.model)
                  for point in points if point.score is None]
    return LearningCurve(tuple(known), seriesOf(known), advise(known), (*unmeasured, *problems))


def seriesOf(points: Sequence[CurvePoint]) -> tuple[CurveSeries, ...]:
    """Points that were measured on the same cases, together; of which nothing is known, each for itself. The series
    with the newest model comes first."""
    lines: dict[tuple, list[CurvePoint]] = {}
    for point in sorted(points, key=_order):
        cases = frozenset((one.case, one.reference) for one in point.scored)
        lines.setdefault((point.kind, cases, "" if cases else point.model), []).append(point)
    newestFirst = sorted(lines.values(), key=lambda line: max(point.created for point in line), reverse=True)
    return tuple(CurveSeries(tuple(line)) for line in newestFirst)


def gainOf(before: CurvePoint, after: CurvePoint) -> Gain | None:
    """What `after` has gained by having learned from more cases; None: they cannot be compared."""
    from medmae.metrics.bootstrap import column_means, mean_interval

    if before.kind != after.kind or not 0 < before.cases < after.cases:
        return None
    earlier = {one.case: one for one in before.scored}
    pairs = [(earlier[one.case], one) for one in after.scored
             if one.reference and one.case in earlier and earlier[one.case].reference == one.reference]
    names = sorted({name for pair in pairs for one in pair for name in one.values})
    tables = [np.array([[_number(pair[side].values.get(name)) for name in names] for pair in pairs], float).reshape(
        len(pairs), len(names)) for side in (0, 1)]
    absent = np.isnan(tables[0]) | np.isnan(tables[1])
    first, second = (np.where(absent, np.nan, table) for table in tables)
    everyone = np.arange(len(pairs))
    means = [column_means(table)(everyone) if names else None for table in (first, second)]
    if means[0] is None or means[1] is None:
        return None
    doublings = math.log2(after.cases / before.cases)
    subjects = [one.subject for one, _other in pairs]
    interval = mean_interval(second, subjects, paired=first)
    return Gain(before, after, (means[1] - means[0]) / doublings,
                None if interval is None else (interval[0] / doublings, interval[1] / doublings),
                len(pairs), len(set(subjects)))


def lastGain(points: Sequence[CurvePoint]) -> Gain | None:
    """The gain of the newest model that can be compared with one that has learned from about half as many cases."""
    for after in sorted(points, key=lambda point: point.created, reverse=True):
        gains = [gain for before in points if (gain := gainOf(before, after)) is not None]
        if gains:
            # of two that are as far from a half the one with more cases in common, then the newer one
            return min(gains, key=lambda gain: (abs(math.log2(after.cases / gain.before.cases) - 1), -gain.cases,
                                                _reversed(gain.before.created)))
    return None


def advise(points: Sequence[CurvePoint]) -> Advice:
    """Whether more annotated cases are likely to help, with its reason and how sure that is."""
    known = [point for point in points if point.score is not None]
    gain = lastGain(known)
    if gain is None:
        return Advice(UNKNOWN, _cannotTell(), _whyNoGain(known))
    verdict = verdictOf(gain)
    text = {LIKELY: _("More labels are likely to help."), UNLIKELY: _("More labels are unlikely to help much."),
            UNKNOWN: _cannotTell()}[verdict]
    return Advice(verdict, text, _reason(gain, verdict), gain)


def verdictOf(gain: Gain) -> str:
    """What a gain tells about the next one: learning curves become flatter, so that it is rarely larger."""
    if gain.interval is None or gain.subjects < LEAST_SUBJECTS:
        return UNKNOWN
    low, high = gain.interval
    if high < WORTH:
        return UNLIKELY
    return LIKELY if low > 0 and gain.perDoubling >= WORTH else UNKNOWN


def _cannotTell() -> str:
    return _("Whether more labels help cannot be told yet.")


def _whyNoGain(points: Sequence[CurvePoint]) -> str:
    if len(points) < 2:
        return _("That needs at least two models, trained on different numbers of cases and measured on the same "
                 "cases. Give some annotated cases the role validation, and keep them there.")
    if len({point.cases for point in points}) < 2:
        return _("All models have learned from {count} cases. Annotate more, and train again.").format(
            count=points[0].cases)
    return _("No two models with different numbers of cases were measured on the same cases with the same labels. Keep "
             "the cases for validation as they are, and train again.")


def _reason(gain: Gain, verdict: str) -> str:
    parts = [_("From {before} to {after} cases the score has changed by {change} for twice the cases, over {cases} "
               "that both models were measured on").format(
        before=gain.before.cases, after=gain.after.cases, change=_signed(gain.perDoubling),
        cases=_("one case") if gain.cases == 1 else _("{count} cases").format(count=gain.cases))]
    if gain.interval is not None:
        parts[0] += _(" (95 % interval {low} to {high})").format(low=_signed(gain.interval[0]),
                                                                high=_signed(gain.interval[1]))
    parts[0] += "."
    if verdict == LIKELY:
        parts.append(_("The next doubling, to {count} cases, usually brings less than the last one.").format(
            count=2 * gain.after.cases))
    elif verdict == UNLIKELY:
        parts.append(_("That is less than {worth}, and the next doubling usually brings less still. What the worst "
                       "cases have in common may help more.").format(worth=f"{WORTH:.2f}"))
    elif gain.subjects < LEAST_SUBJECTS:
        patients = _("one patient") if gain.subjects == 1 else _("{count} patients").format(count=gain.subjects)
        parts.append(_("They show {patients}; it takes {least} to say more.").format(
            patients=patients, least=LEAST_SUBJECTS))
    else:
        parts.append(_("That may be a real gain or none: more cases for validation would tell."))
    if (gain.before.encoder, gain.before.settings) != (gain.after.encoder, gain.after.settings):
        parts.append(_("The two models also differ in what they started from or how they were trained."))
    if gain.before.isSelected or gain.after.isSelected:
        parts.append(_("The same cases have decided when training ended, which makes scores a little too good."))
    parts.append(_("How much chance in training matters is not in this."))
    return " ".join(parts)


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _order(point: CurvePoint) -> tuple:
    return point.cases, point.created, point.model


def _reversed(text: str) -> tuple[int, ...]:
    return tuple(-ord(letter) for letter in text)
