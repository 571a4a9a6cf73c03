"""What scores of models say about more annotated cases: compared only where they can be, no surer than they are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from MedMAETrainLib.LearningCurve import (
    LIKELY,
    UNKNOWN,
    UNLIKELY,
    CurvePoint,
    ScoredCase,
    advise,
    curveOf,
    gainOf,
    lastGain,
    seriesOf,
)


def point(cases, values, *, day=None, how="validation", labels=("background", "liver"), reference="r", **more):
    """A model that has learned from `cases` and has these Dice values on cases v0, v1, ... of subjects of their own."""
    scored = tuple(ScoredCase(f"v{number}", f"subject {number}", reference, {"liver": value})
                   for number, value in enumerate(values))
    known = [value for value in values if value is not None]
    return CurvePoint(more.pop("model", f"n{cases}"), f"2026-11-{day or cases:02d}", cases,
                      sum(known) / len(known) if known else None, how, "segmentation", labels, scored=scored, **more)


EIGHT = (0.60, 0.62, 0.58, 0.61, 0.65, 0.57, 0.63, 0.59)


def shifted(by, values=EIGHT):
    return tuple(value + by for value in values)


def test_a_clear_gain_on_the_same_cases_makes_more_labels_likely_to_help():
    advice = advise([point(4, EIGHT), point(8, shifted(0.08))])
    assert advice.verdict == LIKELY and advice.text == "More labels are likely to help."
    assert advice.gain.perDoubling == pytest.approx(0.08)
    assert "From 4 to 8 cases" in advice.reason and "+0.080" in advice.reason and "16 cases" in advice.reason


def test_no_gain_makes_more_labels_unlikely_to_help_much():
    advice = advise([point(4, EIGHT), point(8, shifted(0.002))])
    assert advice.verdict == UNLIKELY and advice.text == "More labels are unlikely to help much."
    assert "less than 0.01" in advice.reason


def test_a_gain_that_differs_from_case_to_case_tells_nothing_yet():
    uneven = (0.80, 0.42, 0.75, 0.45, 0.85, 0.40, 0.80, 0.42)
    advice = advise([point(4, EIGHT), point(8, uneven)])
    low, high = advice.gain.interval
    assert low < 0 < high
    assert advice.verdict == UNKNOWN and "more cases for validation would tell" in advice.reason


def test_few_patients_tell_nothing_however_large_the_gain_is():
    advice = advise([point(4, EIGHT[:5]), point(8, shifted(0.3, EIGHT[:5]))])
    assert advice.verdict == UNKNOWN and "5 patients" in advice.reason


def test_cases_of_one_patient_count_as_one():
    def of_one_patient(one):
        scored = tuple(ScoredCase(case.case, "the same", case.reference, case.values) for case in one.scored)
        return CurvePoint(one.model, one.created, one.cases, one.score, one.how, one.task, one.labels, scored=scored)

    advice = advise([of_one_patient(point(4, EIGHT)), of_one_patient(point(8, shifted(0.1)))])
    assert advice.verdict == UNKNOWN and advice.gain.subjects == 1 and advice.gain.interval is None


@pytest.mark.parametrize("points", [
    [], [point(4, EIGHT)],
    [point(4, EIGHT), point(4, shifted(0.1), day=9, model="again")],
    [point(4, EIGHT), point(8, shifted(0.1), how="cross-validation")],
    [point(4, EIGHT), point(8, shifted(0.1), labels=("background", "kidney"))],
    [point(4, EIGHT), point(8, shifted(0.1), reference="drawn anew")],
    [point(4, ()), point(8, ())]])
def test_without_two_comparable_models_nothing_is_said(points):
    advice = advise(points)
    assert (advice.verdict, advice.gain) == (UNKNOWN, None)
    assert advice.text == "Whether more labels help cannot be told yet." and advice.reason


def test_only_the_cases_that_both_models_were_measured_on_are_compared():
    before, after = point(4, EIGHT), point(8, shifted(0.05) + (0.0, 0.0, 0.0))
    assert gainOf(before, after).cases == 8
    assert gainOf(before, after).perDoubling == pytest.approx(0.05)


def test_labels_that_a_case_does_not_show_are_left_out_on_both_sides():
    before, after = point(4, (None, *EIGHT)), point(8, (None, *shifted(0.05)))
    assert gainOf(before, after).perDoubling == pytest.approx(0.05)
    assert gainOf(point(4, (None, None)), point(8, (None, None))) is None


def test_the_gain_is_that_of_twice_the_cases():
    assert gainOf(point(4, EIGHT), point(16, shifted(0.08))).perDoubling == pytest.approx(0.04)


def test_the_newest_model_is_compared_with_one_of_about_half_its_cases():
    points = [point(2, EIGHT), point(4, shifted(0.1)), point(7, shifted(0.11)), point(8, shifted(0.12))]
    gain = lastGain(points)
    assert (gain.before.cases, gain.after.cases) == (4, 8)


def test_models_that_were_trained_in_another_way_are_told():
    reason = advise([point(4, EIGHT, encoder="mae"), point(8, shifted(0.1), encoder="n4")]).reason
    assert "what they started from" in reason
    assert "what they started from" not in advise([point(4, EIGHT), point(8, shifted(0.1))]).reason


def test_a_line_joins_only_what_was_measured_on_the_same_cases():
    points = [point(4, EIGHT), point(8, shifted(0.1)), point(8, EIGHT[:4], day=20, model="fewer"),
              point(9, shifted(0.1), day=21, how="cross-validation"), point(2, (), day=1, model="a"),
              point(3, (), day=2, model="b")]
    names = [[one.model for one in line.points] for line in seriesOf(points)]
    assert names == [["n9"], ["fewer"], ["n4", "n8"], ["b"], ["a"]]
    titles = [line.title for line in seriesOf(points)]
    assert titles[:3] == ["Dice, 8 cases by cross-validation", "Dice, 4 cases for validation",
                          "Dice, 8 cases for validation"]
    assert titles[3] == "Dice, on unknown cases (b)"


def test_models_without_a_score_are_told_and_not_drawn():
    curve = curveOf([point(4, EIGHT), point(8, (), model="blind")], ["broken is left out"])
    assert [one.model for one in curve.points] == ["n4"]
    assert curve.problems == ("blind was not measured: no case of its training was for validation.",
                              "broken is left out")


scores = st.one_of(st.none(), st.floats(0, 1))
models = st.builds(
    lambda cases, day, values, how: point(cases, values, day=day, how=how, model=f"{cases} {day} {how}"),
    st.integers(1, 40), st.integers(1, 28), st.lists(scores, max_size=8), st.sampled_from(["validation", ""]))


@settings(max_examples=40, deadline=None)
@given(st.lists(models, max_size=8))
def test_every_set_of_models_gives_an_advice_and_each_point_stands_in_one_line(points):
    curve = curveOf(points)
    drawn = [one for line in curve.series for one in line.points]
    assert sorted(map(id, drawn)) == sorted(map(id, curve.points))
    assert all([one.cases for one in line.points] == sorted(one.cases for one in line.points) for line in curve.series)
    assert curve.advice.verdict in (LIKELY, UNLIKELY, UNKNOWN) and curve.advice.reason
    gain = curve.advice.gain
    if gain is not None:
        assert math.isfinite(gain.perDoubling) and gain.before.cases < gain.after.cases


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=8), st.lists(st.floats(0, 1), min_size=6, max_size=8))
def test_a_sure_verdict_has_an_interval_on_its_side(before, after):
    advice = advise([point(4, before), point(8, after)])
    low, high = advice.gain.interval
    assert advice.verdict != LIKELY or low > 0
    assert advice.verdict != UNLIKELY or high < 0.01
