"""Who is on which side of a split: a patient whose image is trained on must not be in the test."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from MedMAESegmentLib.Translation import tr as _

from MedMAETrainLib.ProjectCase import ProjectCase, isTraining


def refuseCrossing(cases: Iterable[ProjectCase]) -> None:
    """Refuse roles that put a subject on two sides.

    Raises:
        ValueError: every such subject, and what to do.
    """
    of: dict[str, dict[str, ProjectCase]] = defaultdict(dict)
    for case in cases:
        of[case.subject].setdefault("training" if isTraining(case.role) else case.role, case)
    text = _("{subject} would be in {one} ({case}) and in {other} ({another}).")
    problems = []
    for subject, sides in of.items():
        (one, case), *others = sides.items()
        problems += [text.format(subject=subject, one=one, case=case.id, other=other, another=another.id)
                     for other, another in others]
    if problems:
        raise ValueError("\n".join(problems[:10]) + "\n" + _(
            "A patient may be on one side only, otherwise scores would be too good. Give all cases of the patient the "
            "same role together, or, where they are different patients, different subjects."))


def roleFor(subject: str, cases: Iterable[ProjectCase], wanted: str) -> str:
    """The role of a new case nobody has chosen: the `wanted` one, unless its subject is in validation or test."""
    return next((case.role for case in cases if case.subject == subject and not isTraining(case.role)), wanted)


def subjectFor(patient: str, cases: Sequence[ProjectCase]) -> str:
    """The neutral name of a patient: that of the cases of the same patient, or a new one."""
    known = next((case.subject for case in cases if patient and case.source.patient == patient), None)
    return known or next(newSubjects(case.subject for case in cases))


def newSubjects(taken: Iterable[str]) -> Iterator[str]:
    """Neutral names that nobody has."""
    known = set(taken)
    return (name for number in itertools.count(len(known) + 1) if (name := f"subject-{number:04d}") not in known)
