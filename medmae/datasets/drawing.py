"""Drawing few labelled cases: nested in their number, different subjects first, classes in balance."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Hashable, Sequence

from medmae.datasets.dataset import Case
from medmae.errors import BadInput


def seeded_rank(seed: int, *names: str) -> str:
    """A text whose order is random but depends on the seed and the names alone, in every process and on every machine.

    (Python's own ``hash`` of texts differs from process to process.)
    """
    return hashlib.sha256("\0".join((str(seed), *names)).encode()).hexdigest()


def draw_cases(cases: Sequence[Case], n: int, seed: int) -> tuple[Case, ...]:
    """Draw `n` cases; for one seed fewer cases are always contained in more, and the order of `cases` does not matter.

    One by one, the class with the fewest cases so far gives its next case, taken from the subject with the fewest so
    far. Segmentation cases are all of one class; a case with several classes counts for each of them.

    Raises:
        BadInput: `n` is less than 1, or there are fewer cases.
    """
    if not 1 <= n <= len(cases):
        raise BadInput(f"{n} cases were asked for, but the list has {len(cases)}. "
                       f"Choose a number from 1 to {len(cases)}.")
    order = _Draw(cases, seed)
    return tuple(order.next() for _ in range(n))


def classes_of(case: Case) -> tuple[Hashable, ...]:
    """The classes a case counts for; a case without any forms a class of its own with its like."""
    if isinstance(case.class_value, tuple):
        return case.class_value or (None,)
    return (case.class_value,)


class _Draw:
    def __init__(self, cases: Sequence[Case], seed: int) -> None:
        self._drawn_of_subject: dict[str, int] = defaultdict(int)
        self._drawn: set[int] = set()
        self._cases = cases
        self._heaps: dict[Hashable, list[tuple[int, str, str, str, int]]] = defaultdict(list)
        for number, case in enumerate(cases):
            entry = (0, seeded_rank(seed, "subject", case.subject), seeded_rank(seed, "case", case.id), case.id, number)
            for one in classes_of(case):
                self._heaps[one].append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._drawn_of_class = dict.fromkeys(self._heaps, 0)
        self._rank_of_class = {one: seeded_rank(seed, "class", repr(one)) for one in self._heaps}

    def next(self) -> Case:
        for one in sorted(self._heaps, key=lambda name: (self._drawn_of_class[name], self._rank_of_class[name])):
            number = self._take(self._heaps[one])
            if number is not None:
                return self._record(number)
        raise AssertionError("more cases were drawn than there are")

    def _take(self, heap: list[tuple[int, str, str, str, int]]) -> int | None:
        # Counts only grow, so an entry with an outdated count is put back and the smallest true one comes up.
        while heap:
            count, subject_rank, case_rank, identifier, number = heapq.heappop(heap)
            if number in self._drawn:
                continue
            now = self._drawn_of_subject[self._cases[number].subject]
            if now == count:
                return number
            heapq.heappush(heap, (now, subject_rank, case_rank, identifier, number))
        return None

    def _record(self, number: int) -> Case:
        case = self._cases[number]
        self._drawn.add(number)
        self._drawn_of_subject[case.subject] += 1
        for one in classes_of(case):
            self._drawn_of_class[one] += 1
        return case
