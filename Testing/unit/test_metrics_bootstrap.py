"""Bootstrap intervals: subjects stay together, arms are paired, draws repeat."""

from __future__ import annotations

import numpy as np
import pytest

from medmae.metrics import bootstrap_interval, mean_interval


def test_the_interval_of_a_mean_is_close_to_theory():
    values = np.random.default_rng(1).normal(0.7, 0.1, 200)
    low, high = mean_interval(values, [str(n) for n in range(200)])
    half = 1.96 * values.std() / np.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_cases_of_a_subject_are_drawn_together():
    subjects = ["a", "a", "a", "b", "c", "c"]
    groups = {"a": {0, 1, 2}, "b": {3}, "c": {4, 5}}

    def statistic(cases):
        drawn = np.bincount(cases, minlength=6)
        for members in groups.values():
            assert len({drawn[member] for member in members}) == 1
        assert sum(drawn[min(members)] for members in groups.values()) == 3
        return 0.0

    assert bootstrap_interval(subjects, statistic, samples=200) == (0.0, 0.0)


def test_repeating_each_case_under_its_subject_does_not_narrow_the_interval():
    values = np.random.default_rng(2).normal(size=40)
    subjects = [str(n) for n in range(40)]
    low, high = mean_interval(values, subjects)
    assert mean_interval(np.repeat(values, 5), np.repeat(subjects, 5)) == (pytest.approx(low), pytest.approx(high))
    wrong = mean_interval(np.repeat(values, 5), [str(n) for n in range(200)])
    assert wrong[1] - wrong[0] < 0.6 * (high - low)


def test_pairing_finds_a_small_constant_gain_that_separate_intervals_hide():
    easy_and_hard = np.random.default_rng(3).uniform(0.2, 0.9, 30)
    subjects = [str(n) for n in range(30)]
    low, high = mean_interval(easy_and_hard + 0.01, subjects, paired=easy_and_hard)
    assert low == pytest.approx(0.01) and high == pytest.approx(0.01)
    first, second = mean_interval(easy_and_hard, subjects), mean_interval(easy_and_hard + 0.01, subjects)
    assert first[1] > second[0]


def test_the_same_seed_gives_the_same_interval_in_any_order_of_cases():
    values = np.random.default_rng(4).normal(size=25)
    subjects = [f"s{n % 9}" for n in range(25)]
    shuffled = np.random.default_rng(5).permutation(25)
    one = mean_interval(values, subjects, seed=7)
    other = mean_interval(values[shuffled], [subjects[n] for n in shuffled], seed=7)
    assert other == (pytest.approx(one[0]), pytest.approx(one[1]))
    assert mean_interval(values, subjects, seed=8) != one


def test_absent_values_are_left_out_and_labels_are_averaged_after_cases():
    table = np.array([[1.0, np.nan], [0.5, 0.2], [1.0, np.nan], [0.5, 0.2]])
    low, high = mean_interval(table, list("abcd"))
    assert 0.35 <= low <= high <= 1.0
    assert mean_interval(np.full((3, 2), np.nan), list("abc")) is None


def test_there_is_no_interval_of_one_subject_or_of_a_figure_that_mostly_does_not_exist():
    assert mean_interval([0.5, 0.6], ["a", "a"]) is None
    assert bootstrap_interval([], lambda cases: 1.0) is None
    assert bootstrap_interval(list("abcdefghij"), lambda cases: None if 0 not in cases or 1 not in cases else 1.0,
                              samples=400) is None
