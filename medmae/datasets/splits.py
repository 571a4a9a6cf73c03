"""Splitting a list of cases by subject: into parts of given sizes, or into cross-validation folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from medmae.datasets.dataset import Case
from medmae.datasets.drawing import classes_of, seeded_rank
from medmae.errors import BadInput


def split_by_subject(cases: Sequence[Case], fractions: Mapping[str, float], seed: int) -> dict[str, tuple[Case, ...]]:
    """Divide `cases` into named parts of about the given fractions; no subject is in two parts.

    Classes are kept in about the same proportion in every part, no part is empty, and cases keep their order.

    Raises:
        BadInput: the fractions are not positive or do not add up to 1, or there are fewer subjects than parts.
    """
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise BadInput(f"The fractions {dict(fractions)} must be positive and add up to 1.")
    of_subject: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        of_subject[case.subject].append(case)
    if len(of_subject) < len(fractions):
        raise BadInput(f"{len(fractions)} parts were asked for, but the cases come from {len(of_subject)} subjects. "
                       "Ask for fewer parts, or give cases of more subjects.")
    part_of = _assign(of_subject, fractions, seed)
    return {part: tuple(case for case in cases if part_of[case.subject] == part) for part in fractions}


def folds(cases: Sequence[Case], k: int, seed: int) -> tuple[tuple[tuple[Case, ...], tuple[Case, ...]], ...]:
    """`k` pairs (training, held out); every case is held out once, and no subject is on both sides of a pair.

    Raises:
        BadInput: `k` is less than 2 or larger than the number of subjects.
    """
    if k < 2:
        raise BadInput(f"{k} folds were asked for; at least 2 are needed.")
    number = len({case.subject for case in cases})
    if number < k:
        raise BadInput(f"{k} folds were asked for, but the cases come from {number} subject{'s' * (number > 1)}. "
                       "Ask for fewer folds, or give cases of more subjects.")
    parts = split_by_subject(cases, {str(number): 1 / k for number in range(k)}, seed)
    pairs = []
    for held_out in parts.values():
        subjects = {case.subject for case in held_out}
        pairs.append((tuple(case for case in cases if case.subject not in subjects), held_out))
    return tuple(pairs)


def _assign(of_subject: Mapping[str, Sequence[Case]], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Give each subject, in random order, to the part that lacks most, within its kind and over all."""
    part_of: dict[str, str] = {}
    filled: dict[tuple[object, str], int] = defaultdict(int)
    seen: dict[object, int] = defaultdict(int)
    for subject in sorted(of_subject, key=lambda name: (seeded_rank(seed, "split", name), name)):
        members = of_subject[subject]
        kind = tuple(sorted({repr(one) for case in members for one in classes_of(case)}))
        for group in (kind, None):
            seen[group] += len(members)

        def lack(part: str, kind: object = kind) -> float:
            return sum(fractions[part] * seen[group] - filled[group, part] for group in (kind, None))

        chosen = max(fractions, key=lambda part: round(lack(part), 9))
        part_of[subject] = chosen
        for group in (kind, None):
            filled[group, chosen] += len(members)
    _fill_empty(part_of, fractions)
    return part_of


def _fill_empty(part_of: dict[str, str], fractions: Mapping[str, float]) -> None:
    for part in fractions:
        if part in part_of.values():
            continue
        subjects = {other: [name for name, where in part_of.items() if where == other] for other in fractions}
        largest = max(subjects.values(), key=len)
        part_of[largest[-1]] = part
