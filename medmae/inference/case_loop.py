"""Work on many cases: a bad one does not take the others down, a stop is obeyed between them, progress is steady."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from medmae.errors import BadInput, PartialFailure, Stopped
from medmae.inference.sliding_window import OnProgress
from medmae.run_folder import RunFolder

log = logging.getLogger(__name__)
STEPS_PER_CASE = 100
WRITE_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class CaseFailure:
    """A case that could not be worked on; `is_bad_input` tells the user's mistake from ours."""

    case: str
    reason: str
    is_bad_input: bool


def for_each_case(run: RunFolder, stage: str, cases: Sequence[str], work: Callable[[int, OnProgress], None],
                  failures: list[CaseFailure], *, sizes: Sequence[float] | None = None,
                  done_before: Collection[int] = ()) -> None:
    """Call ``work(index, on_progress)`` for every case and add those that fail to `failures`.

    `on_progress` takes (parts done, parts in all) of the case. A progress record counts 100 steps a case, so that one
    large case shows its progress too. The time left follows from the sizes of the cases and the time that those done
    so far have taken. The record of a case's end says how: `ended` is "done" or "failed", then with the `reason`, and
    `case_seconds` is what it took.

    Args:
        run: takes progress; is asked whether to stop.
        stage: name of the work in records.
        cases: what the cases are called.
        work: what to do.
        failures: takes the cases that fail.
        sizes: how much work each case is, in any unit (voxels); None: all the same.
        done_before: indices of cases that are finished already.

    Raises:
        Stopped: a stop was asked for; earlier cases are done.
    """
    progress = _Progress(run, stage, cases, sizes or [1.0] * len(cases), done_before)
    for index, case in enumerate(cases):
        if index in done_before:
            progress.report(index, 1.0)
            continue
        progress.report(index, 0.0)
        started, reason = time.monotonic(), None
        try:
            if run.stop_requested:
                raise Stopped("Stopped on request.")
            work(index, lambda done, total, index=index: progress.report(index, done / total))  # type: ignore[misc]
            log.info("%s: %s (%.1f s)", stage, case, time.monotonic() - started)
        except Stopped:
            raise Stopped(f"Stopped on request after {index} of {len(cases)} cases; their results are kept.") from None
        except BadInput as error:
            log.error("%s: %s", case, error)
            reason = str(error)
            failures.append(CaseFailure(case, reason, True))
        except Exception as error:
            log.exception("%s failed", case)
            reason = f"{type(error).__name__}: {error}"
            failures.append(CaseFailure(case, reason, False))
        progress.end(index, time.monotonic() - started, reason)


def raise_failures(failures: Sequence[CaseFailure], total: int) -> None:
    """End a run whose cases all failed by bad input (exit code 2), or some of whose cases failed (exit code 1).

    Raises:
        BadInput: every case is bad input.
        PartialFailure: anything else failed.
    """
    if not failures:
        return
    reasons = "\n".join(f"  {failure.case}: {failure.reason}" for failure in failures)
    if len(failures) == total and all(failure.is_bad_input for failure in failures):
        if total == 1:
            raise BadInput(failures[0].reason)
        raise BadInput(f"None of the {total} images could be used:\n{reasons}")
    raise PartialFailure(f"{len(failures)} of {total} images failed; the results of the others are kept:\n{reasons}")


class _Progress:
    def __init__(self, run: RunFolder, stage: str, cases: Sequence[str], sizes: Sequence[float],
                 done_before: Collection[int]) -> None:
        self.run = run
        self.stage = stage
        self.cases = cases
        self.work = [0.0 if index in done_before else size for index, size in enumerate(sizes)]
        self.work_before = [0.0, *itertools.accumulate(self.work)]
        self.started = time.monotonic()
        self.written = float("-inf")

    def report(self, index: int, fraction: float) -> None:
        """Write that `fraction` of case `index` is done, at most twice a second (the end always)."""
        is_last = index == len(self.cases) - 1 and fraction == 1.0
        if is_last or time.monotonic() - self.written >= WRITE_EVERY_SECONDS:
            self._write(index, fraction)

    def end(self, index: int, seconds: float, reason: str | None) -> None:
        """Write that case `index` has ended after `seconds`; `reason`: why it failed, None: it is done."""
        ended = {"ended": "done"} if reason is None else {"ended": "failed", "reason": reason}
        self._write(index, 1.0, case_seconds=round(seconds, 3), **ended)

    def _write(self, index: int, fraction: float, **ended: Any) -> None:
        now = time.monotonic()
        step = index * STEPS_PER_CASE + int(fraction * STEPS_PER_CASE)
        total = len(self.cases) * STEPS_PER_CASE
        seconds = now - self.started
        record = {"stage": self.stage, "step": step, "total": total, "case": index + 1, "cases": len(self.cases),
                  "message": self.cases[index], "seconds": round(seconds, 3),
                  "eta_s": self._seconds_left(index, fraction, seconds), **ended}
        self.run.append_progress(record)
        self.run.write_state(step=step, total=total)
        self.written = now

    def _seconds_left(self, index: int, fraction: float, seconds: float) -> float | None:
        done = self.work_before[index] + fraction * self.work[index]
        left = self.work_before[-1] - done
        return round(seconds / done * left, 1) if done else None
