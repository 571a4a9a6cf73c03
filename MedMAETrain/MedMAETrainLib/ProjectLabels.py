"""Which label of the project a segment is: by name, where the user does not say."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from MedMAESegmentLib.Translation import tr as _

from medmae.volumes.segments import Segment, default_segments


def plain(name: str) -> str:
    """A name without what people write differently: capitals, accents, spaces, "_", "-" and "."."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    kept = "".join(letter for letter in letters if not unicodedata.combining(letter) and letter not in "_-."
                   and not letter.isspace())
    return kept or name


def proposeMapping(labels: Sequence[Segment], segmentNames: Sequence[str]) -> dict[str, str | None]:
    """For each segment the label that it most likely is; where no label is like it, its own name, for a new label."""
    exact = {label.name for label in labels}
    like: dict[str, str] = {}
    for label in labels:
        like.setdefault(plain(label.name), label.name)
    proposal: dict[str, str | None] = {}
    for name in segmentNames:
        proposal[name] = name if name in exact else like.setdefault(plain(name), name)
    return proposal


def chooseMapping(labels: Sequence[Segment], segmentNames: Sequence[str],
                  given: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """The label of each segment: the `given` one (None: it is left out; an unknown name: a new label), else the one
    that it is like. The first segments of a project make its labels.

    Raises:
        ValueError: a segment is like no label and nothing was given for it, or the other way round.
    """
    given = {" ".join(name.split()): label for name, label in (given or {}).items()}
    unknown = [name for name in given if name not in segmentNames]
    if unknown:
        raise ValueError(_("There is no segment {segment}. The segments are: {segments}.").format(
            segment=unknown[0], segments=", ".join(segmentNames) or "-"))
    mapping = {**proposeMapping(labels, segmentNames), **given}
    known = {label.name for label in labels}
    unlike = [name for name in segmentNames if name not in given and mapping[name] not in known]
    if labels and unlike:
        raise ValueError(_("No label of the project is like the segments {segments}; its labels are {labels}. Say for "
                           "each which label it is, that it is a new one, or that it is left out.").format(
            segments=", ".join(unlike), labels=", ".join(label.name for label in labels)))
    return mapping


def withLabel(labels: Sequence[Segment], name: str, color: Sequence[float] | None = None,
              terminology: dict[str, Any] | None = None) -> tuple[Segment, ...]:
    """The labels and a new one; without colour and terms it gets the usual ones.

    Raises:
        ValueError: the name cannot be used, or is taken.
    """
    refuseName(name, labels)
    value = 1 + max((label.value for label in labels), default=0)
    usual = default_segments({**{label.name: label.value for label in labels}, name: value})[-1]
    return *labels, Segment(name, value, _color(color) or usual.color, terminology or usual.terminology)


def _color(color: Sequence[float] | None) -> tuple[float, float, float] | None:
    if color is None:
        return None
    red, green, blue = (float(part) for part in color)
    return red, green, blue


def refuseName(name: str, labels: Iterable[Segment]) -> None:
    """Refuse what cannot be the name of a further label.

    Raises:
        ValueError: why.
    """
    if not name.strip():
        raise ValueError(_("A label needs a name. Name the segment."))
    if plain(name) == "background":
        raise ValueError(_("What no segment covers is background already. Leave the segment {segment} out.").format(
            segment=name))
    if any(label.name == name for label in labels):
        raise ValueError(_("There is a label {label} already.").format(label=name))


def undecided(labels: Sequence[Segment], segmentNames: Iterable[str]) -> list[str]:
    """The segments of which the user has to say which label they are; none where there are no labels yet."""
    known = {plain(label.name) for label in labels}
    return [name for name in segmentNames if known and plain(name) not in known]


def likeliestLabel(labels: Sequence[Segment], segment: str) -> str | None:
    """The label whose name has most in common with that of a segment; None: they are too different to propose one."""
    found = difflib.get_close_matches(plain(segment), [plain(label.name) for label in labels], 1, 0.6)
    return next((label.name for label in labels if plain(label.name) == found[0]), None) if found else None
