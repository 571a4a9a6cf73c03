"""Bootstrap intervals over subjects: a subject's cases are drawn together, and two arms on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAMPLES = 2000
Statistic = Callable[[NDArray[np.int64]], float | None]


def bootstrap_interval(subjects: Sequence[str], statistic: Statistic, *, paired: Statistic | None = None,
                       samples: int = SAMPLES, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
    """Percentile interval of a statistic, drawing subjects with replacement.

    Args:
        subjects: the subject of each case.
        statistic: given case indices (with repeats), the figure, or None where it does not exist.
        paired: when given, the interval is of ``statistic - paired`` on the same draws.
        samples: number of draws.
        seed: of the draws.
        level: coverage.

    Returns:
        (low, high); None with fewer than two subjects, or where most draws have no figure.
    """
    figures = []
    for cases in _draws(subjects, samples, seed):
        figure = statistic(cases)
        other = 0.0 if paired is None else paired(cases)
        if figure is not None and other is not None:
            figures.append(figure - other)
    return _percentiles(figures, samples, level)


def mean_interval(values: ArrayLike, subjects: Sequence[str], *, paired: ArrayLike | None = None,
                  samples: int = SAMPLES, seed: int = 0, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of a mean of values (cases,) or of the mean over labels of the means over cases (cases, labels).

    NaN stands for an absent value; a label that no drawn case has is left out of that draw. With `paired`, of the same
    shape, the interval is of the difference. Otherwise as ``bootstrap_interval``.
    """
    first = column_means(values)
    second = None if paired is None else column_means(paired)
    return bootstrap_interval(subjects, first, paired=second, samples=samples, seed=seed, level=level)


def bootstrap_weights(subjects: Sequence[str], *, samples: int = SAMPLES, seed: int = 0,
                      entries: int = 4_000_000) -> Iterator[NDArray[np.float64]]:
    """The same draws as ``bootstrap_interval`` as tables (draws, cases): how often each case was drawn.

    A table has `entries` numbers at most (one draw at least), so that memory does not grow with the cases. Nothing
    comes with fewer than two subjects.
    """
    most = max(1, entries // max(len(subjects), 1))
    rows: list[NDArray[np.int64]] = []
    for cases in _draws(subjects, samples, seed):
        rows.append(np.bincount(cases, minlength=len(subjects)))
        if len(rows) == most:
            yield np.array(rows, dtype=float)
            rows = []
    if rows:
        yield np.array(rows, dtype=float)


def percentile_interval(figures: NDArray[np.float64], *, samples: int = SAMPLES,
                        level: float = 0.95) -> tuple[float, float] | None:
    """The interval of the figures (draws,) of all draws, NaN where a draw has none, as ``bootstrap_interval`` does."""
    return _percentiles(figures[np.isfinite(figures)].tolist(), samples, level)


def column_means(values: ArrayLike) -> Statistic:
    """The statistic of ``mean_interval``: of drawn cases the mean over labels of the means over cases."""
    table = np.asarray(values, dtype=float)
    table = table[:, None] if table.ndim == 1 else table
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)

    def statistic(cases: NDArray[np.int64]) -> float | None:
        counts = known[cases].sum(axis=0)
        sums = filled[cases].sum(axis=0)
        return float(np.mean(sums[counts > 0] / counts[counts > 0])) if counts.any() else None

    return statistic


def _draws(subjects: Sequence[str], samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    names = sorted(set(subjects))
    if len(names) < 2:
        return
    number = {name: position for position, name in enumerate(names)}
    members: list[list[int]] = [[] for _ in names]
    for case, subject in enumerate(subjects):
        members[number[subject]].append(case)
    arrays = [np.array(cases, dtype=np.int64) for cases in members]
    generator = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.concatenate([arrays[one] for one in generator.integers(len(names), size=len(names))])


def _percentiles(figures: Sequence[float], samples: int, level: float) -> tuple[float, float] | None:
    if 2 * len(figures) < samples or not figures:
        return None
    tail = 50 * (1 - level)
    low, high = np.percentile(figures, [tail, 100 - tail])
    return float(low), float(high)
