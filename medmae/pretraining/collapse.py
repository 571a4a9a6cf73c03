"""Whether self-distillation has collapsed: student and teacher agree because they say the same of every image.

Two figures of every step tell it. `feature_std` is the standard deviation of the student's embeddings over the views of
a batch, averaged over their features; when all images look alike to the encoder it goes to zero. `teacher_entropy` (of
the cross-entropy form) is that of the teacher's targets; near 1 they are uniform and say nothing about the image. (Near
0 they are one-hot, which is no collapse as long as embeddings differ: targets are centred, so they differ too.)

Both are judged by their medians over a window of steps, the spread against that of the untrained encoder. Every run
goes through a dip in which embeddings are nearly alike, healthy ones for some 50 steps, before they learn to tell
images apart; so the spread is judged when `GRACE_STEPS` and `GRACE_SHARE` of the run are over.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

log = logging.getLogger(__name__)
WINDOW = 20  # steps; single batches of a few volumes scatter
GRACE_STEPS, GRACE_SHARE = 100, 0.2
LOST_SPREAD, FOUND_SPREAD = 0.125, 0.25  # of the spread at the start: where a collapse begins, and where it is over
MOST_ENTROPY = 0.99
REMEDY = ("The encoder will be of little use beyond its reconstruction part. Stop and start again with a lower "
          "learning rate or more volumes a batch, with the default temperatures and momentum, or without the "
          "consistency terms (weight_global_to_global=0, weight_global_to_local=0).")


class _Figures(NamedTuple):
    """What a step says of a collapse; `entropy` is None for the negative cosine, which has no distributions."""

    step: int
    spread: float
    entropy: float | None


class CollapseWatch:
    """Follows the training records of a run in order and, unless `quiet`, logs where a collapse begins and ends."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._first: _Figures | None = None
        self._window: deque[_Figures] = deque(maxlen=WINDOW)
        self.since_step: int | None = None
        self.reason: str | None = None

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in the figures of a step, or of one that is repeated after a resume."""
        if "feature_std" not in record:
            return
        step = int(record["step"])
        while self._window and self._window[-1].step >= step:
            self._window.pop()
        self._window.append(_Figures(step, record["feature_std"], record.get("teacher_entropy")))
        self._first = self._first or self._window[0]
        if len(self._window) < WINDOW:  # at the start, or after steps that are repeated: nothing is known anew
            return
        is_late = step >= max(GRACE_STEPS, GRACE_SHARE * record.get("total", 0))
        before, self.reason = self.reason, self._judge(self._first.spread, is_late, self.reason is not None)
        if self.reason is None:
            if before is not None and not self._quiet:
                log.info("step %d: embeddings tell images apart again", step)
            self.since_step = None
        elif before is None:
            self.since_step = step
            if not self._quiet:
                log.warning("the consistency terms have collapsed at step %d: %s. %s", step, self.reason, REMEDY)

    def summary(self) -> dict[str, Any]:
        """``collapsed``, ``since_step`` and ``reason`` (None where it is not), first and last value of both figures."""
        told: dict[str, Any] = {"collapsed": self.reason is not None, "since_step": self.since_step,
                                "reason": self.reason}
        if self._first is None:
            return told
        first, last = self._first, self._window[-1]
        told["feature_std"] = [round(first.spread, 4), round(last.spread, 4)]
        if first.entropy is not None and last.entropy is not None:
            told["teacher_entropy"] = [round(first.entropy, 4), round(last.entropy, 4)]
        return told

    def _judge(self, start: float, is_late: bool, was_collapsed: bool) -> str | None:
        """Why the last window is one of a collapsed run, or None; `start` is the spread of the untrained encoder."""
        now = median(figures.spread for figures in self._window)
        if is_late and now < (FOUND_SPREAD if was_collapsed else LOST_SPREAD) * start:
            return (f"the spread of the embeddings fell to {now:.2g}, {100 * now / start:.0f} % of the untrained "
                    f"encoder's ({start:.2g})")
        entropies = [figures.entropy for figures in self._window if figures.entropy is not None]
        if entropies and median(entropies) > MOST_ENTROPY:
            return f"the teacher's targets are uniform (entropy {median(entropies):.4g} of the largest possible)"
        return None


def collapse_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of a run's records, in order and each step once: the same however often the run was interrupted."""
    watch = CollapseWatch(quiet=True)
    for record in records:
        watch.note(record)
    return watch.summary()
