"""Classification figures against plain loops over cases: values, intervals, ROC corners, absent classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmae.metrics import ClassificationCase, bootstrap_interval, classification_scores, roc_points
from medmae.metrics.class_figures import ScoredCases


def drawn(seed, classes, several, count=40):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, (count, classes)) if several else generator.integers(0, classes, count)
    raw = np.round(generator.random((count, classes)), 1)  # many ties
    probabilities = raw if several else (raw + 0.01) / (raw + 0.01).sum(1, keepdims=True)
    return targets, probabilities


def one_class(truth, found):
    """(sensitivity, specificity) of one class, None where there is nothing to count."""
    has = [f for t, f in zip(truth, found, strict=True) if t]
    lacks = [f for t, f in zip(truth, found, strict=True) if not t]
    return (sum(has) / len(has) if has else None, sum(not f for f in lacks) / len(lacks) if lacks else None)


def slow_auc(truth, score):
    pairs = [(1.0 if a > b else 0.5 if a == b else 0.0) for a, t in zip(score, truth, strict=True) if t
             for b, u in zip(score, truth, strict=True) if not u]
    return sum(pairs) / len(pairs) if pairs else None


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def slow_figures(targets, probabilities):
    """Every figure by loops."""
    count, classes = probabilities.shape
    several = targets.ndim == 2
    truth = [[bool(targets[n][c]) if several else targets[n] == c for c in range(classes)] for n in range(count)]
    found = [[probabilities[n][c] >= 0.5 if several else c == list(probabilities[n]).index(max(probabilities[n]))
              for c in range(classes)] for n in range(count)]
    column = [[row[c] for row in truth] for c in range(classes)]
    each = [one_class(column[c], [row[c] for row in found]) for c in range(classes)]
    areas = [slow_auc(column[c], list(probabilities[:, c])) for c in range(classes)]
    sensitivity, specificity = [pair[0] for pair in each], [pair[1] for pair in each]
    both = [None if None in pair else sum(pair) / 2 for pair in each]
    binary = classes == 2 and not several
    squares = [[(probabilities[n][c] - truth[n][c]) ** 2 for c in range(classes)] for n in range(count)]
    brier = [row[1] if binary else sum(row) / classes if several else sum(row) for row in squares]
    return {"auc": areas[1] if binary else mean(areas),
            "accuracy": sum(t == f for t, f in zip(truth, found, strict=True)) / count,
            "balanced_accuracy": mean(both) if several else mean(sensitivity),
            "sensitivity": sensitivity[1] if binary else mean(sensitivity),
            "specificity": specificity[1] if binary else mean(specificity), "brier": sum(brier) / count,
            "per_class": {"auc": areas, "sensitivity": sensitivity, "specificity": specificity}}


def scores_of(targets, probabilities, subjects=None, **more):
    classes = [f"class {number}" for number in range(probabilities.shape[1])]
    targets = [tuple(np.flatnonzero(row)) if targets.ndim == 2 else int(row) for row in targets]
    return classification_scores([
        ClassificationCase(f"image {n}", subjects[n] if subjects else str(n), targets[n], tuple(probabilities[n]),
                           **{key: tuple(value[n]) for key, value in more.items()})
        for n in range(len(targets))], classes)


@pytest.mark.parametrize(("classes", "several"), [(2, False), (3, False), (5, False), (2, True), (4, True), (1, True)])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_figures_equal_loops_over_the_cases(classes, several, count):
    for seed in range(4):
        targets, probabilities = drawn(seed, classes, several, count)
        expected, scores = slow_figures(targets, probabilities), scores_of(targets, probabilities)
        for name in ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier"):
            assert scores[name] == (None if expected[name] is None else pytest.approx(expected[name])), name
        for number, found in enumerate(scores["per_class"].values()):
            for name, values in expected["per_class"].items():
                value = values[number]
                assert found[name] == (None if value is None else pytest.approx(value)), name
        assert json.loads(json.dumps(scores, allow_nan=False)) == scores


@pytest.mark.parametrize(("classes", "several"), [(2, False), (3, False), (3, True)])
def test_intervals_are_those_of_the_plain_bootstrap(classes, several):
    targets, probabilities = drawn(1, classes, several, 12)
    subjects = [f"s{number // 2}" for number in range(12)]
    overall, per_class = ScoredCases(targets, probabilities).intervals(subjects, samples=100)
    for name in ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier"):
        expected = bootstrap_interval(subjects, lambda cases, name=name: slow_figures(
            targets[cases], probabilities[cases])[name], samples=100)
        assert overall[name] == pytest.approx(expected), name
    expected = bootstrap_interval(subjects, lambda cases: slow_figures(
        targets[cases], probabilities[cases])["per_class"]["specificity"][0], samples=100)
    assert per_class["specificity"][0] == pytest.approx(expected)


def test_a_class_that_no_case_has_gives_null_and_leaves_the_others_alone():
    targets, probabilities = np.array([0, 0, 1, 1]), np.array([[.7, .2, .1], [.6, .3, .1], [.2, .7, .1], [.5, .4, .1]])
    scores = scores_of(targets, probabilities)
    absent = scores["per_class"]["class 2"]
    assert absent["auc"] is None and absent["sensitivity"] is None and absent["auc_interval"] is None
    assert absent["specificity"] == 1.0
    assert scores["roc"]["class 2"] is None and scores["auc"] == 1.0 and scores["balanced_accuracy"] == 0.75
    assert scores["confusion"] == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    only = scores_of(np.array([1, 1]), np.array([[.4, .6], [.7, .3]]))
    assert only["auc"] is None and only["specificity"] is None and only["sensitivity"] == 0.5


def test_no_class_at_all_is_a_right_answer_where_several_may_apply():
    scores = scores_of(np.array([[0, 0], [1, 0], [0, 0]]), np.array([[.1, .2], [.9, .4], [.6, .1]]))
    assert scores["cases"][0]["label"] == [] and scores["cases"][0]["predicted"] == []
    assert scores["accuracy"] == pytest.approx(2 / 3) and scores["confusion"] is None
    assert scores["per_class"]["class 0"]["false_positive"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=30))
def test_roc_corners_have_the_area_of_the_curve_and_no_point_in_between(cases):
    truth, score = [case[0] for case in cases], [float(case[1]) for case in cases]
    points = roc_points(truth, score)
    if points is None:
        assert slow_auc(truth, score) is None
        return
    false, true = np.array(points)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(slow_auc(truth, score))
    every = {(sum(s >= t and not w for w, s in zip(truth, score, strict=True)) / truth.count(False),
              sum(s >= t and w for w, s in zip(truth, score, strict=True)) / truth.count(True)) for t in score}
    assert set(zip(false[1:].tolist(), true[1:].tolist(), strict=True)) <= every
    cross = np.diff(false)[:-1] * np.diff(true)[1:] - np.diff(false)[1:] * np.diff(true)[:-1]
    assert (np.abs(cross) > 1e-12).all()


def test_many_subjects_are_drawn_in_several_tables_with_the_same_result(monkeypatch):
    from medmae.metrics import class_figures
    from medmae.metrics.bootstrap import bootstrap_weights

    targets, probabilities = drawn(3, 3, False, 30)
    subjects = [str(number) for number in range(30)]
    whole = ScoredCases(targets, probabilities).intervals(subjects, samples=50)
    monkeypatch.setattr(class_figures, "bootstrap_weights",
                        lambda names, samples: bootstrap_weights(names, samples=samples, entries=200))
    assert ScoredCases(targets, probabilities).intervals(subjects, samples=50) == whole
