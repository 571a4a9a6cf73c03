"""What the panel says of cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from MedMAESegmentLib.Panel.Dialogs import asPlainHtml
from slicer.i18n import tr as _

from MedMAETrainLib.ProjectCase import TRUTH, ProjectCase
from MedMAETrainLib.ProjectImport import Added

WIDEST_STATE = _("Annotated")
_LONGEST_TOOLTIP = 12  # segments


def nameText(case: ProjectCase) -> str:
    """What the user knows a case by."""
    return case.source.name or case.id


def stateText(case: ProjectCase) -> str:
    """How far a case is. One whose segmentation lacks labels is begun only."""
    if case.state == "unannotated" and case.segmentation is not None:
        return _("Begun")
    return {"unannotated": "-", "annotated": WIDEST_STATE, "predicted": _("Predicted"),
            "corrected": _("Corrected")}[case.state]


def roleText(role: str) -> str:
    """What a case is used for."""
    return {"training": _("Training"), "validation": _("Validation"), "test": _("Test"),
            "unlabelled": _("Pretraining")}[role]


def patientText(subject: str) -> str:
    """A patient, of the neutral names that a project gives the number alone."""
    number = re.fullmatch(r"subject-0*(\d+)", subject)
    return number[1] if number else subject


def segmentsText(case: ProjectCase) -> str:
    """What is drawn on a case."""
    return ", ".join(dict.fromkeys(segment.label for segment in case.segments if segment.label))


def toolTip(case: ProjectCase) -> str:
    """Everything about a case, as HTML."""
    source = {"scene": _("A volume of the scene"), "file": _("Image file"), "dicom": _("DICOM series")}.get(
        case.source.kind, case.source.kind)
    lines = [f"{nameText(case)} ({case.id})", f"{source}: {case.source.file or case.image}",
             _("Patient: {subject}").format(subject=case.subject), f"{stateText(case)}, {roleText(case.role)}"]
    if case.state == "unannotated" and case.segmentation is not None:
        lines[-1] = _("Begun: not all labels are drawn, so that nothing is learned from it yet")
    lines += [_segmentText(segment.name, segment.label, segment.voxels) for segment in case.segments[:_LONGEST_TOOLTIP]]
    if len(case.segments) > _LONGEST_TOOLTIP:
        lines.append(_("and {count} more segments").format(count=len(case.segments) - _LONGEST_TOOLTIP))
    if case.allowMissing:
        lines.append(_("Labels that are not drawn are not there to see."))
    return asPlainHtml("\n".join([*lines, *case.notes]))


def named(text: str, cases: Sequence[ProjectCase]) -> str:
    """A text that names cases by their ids, with the names that the user knows."""
    names = {case.id: nameText(case) for case in cases if case.id in text}
    pattern = r"(?<![\w/\\-])case-\d+(?![\w/\\])"  # not where it is part of a path
    return re.sub(pattern, lambda found: f"{names[found[0]]} ({found[0]})" if found[0] in names else found[0], text)


def countsText(cases: Sequence[ProjectCase]) -> str:
    """How many cases there are of each kind."""
    states = Counter("done" if case.state in TRUTH else case.state for case in cases)
    roles = Counter(case.role for case in cases)
    texts = ((_("{count} annotated"), states["done"]), (_("{count} predicted"), states["predicted"]),
             (_("{count} not annotated"), states["unannotated"]), (_("{count} for validation"), roles["validation"]),
             (_("{count} for test"), roles["test"]))
    return ", ".join(text.format(count=count) for text, count in texts if count)


def addedText(added: Added, cases: Sequence[ProjectCase]) -> str:
    """What came of adding cases: what was repaired, what is to be done, and what was left out; `cases` are all."""
    if len(added.cases) == 1:
        lines = [_("{name} was added.").format(name=nameText(added.cases[0]))]
    elif added.cases:
        lines = [_("{count} cases were added.").format(count=len(added.cases))]
    else:
        lines = [_("Nothing was added.")]
    for case in added.cases:
        lines += [f"{nameText(case)}: {note}" for note in case.notes]
        if case.state == "unannotated" and case.segmentation is not None:
            lines.append(_("{name}: {todo}").format(name=nameText(case), todo=missingText()))
    if added.skipped:
        lines += ["", _("Left out ({count}):").format(count=len(added.skipped))]
        lines += [f"{name}: {reason}" for name, reason in added.skipped]
    return named("\n".join(lines), cases)


def missingText() -> str:
    """What to do about a case that lacks labels."""
    return _("Nothing is learned from it until all labels are drawn. Draw them and save back, or, where there is none "
             "of them to see, choose Change > Nothing more to draw.")


def _segmentText(name: str, label: str | None, voxels: int) -> str:
    if label is None:
        return _("{segment}: left out").format(segment=name)
    shown = name if label == name else _("{segment} (label {label})").format(segment=name, label=label)
    return _("{segment}: {count} voxels").format(segment=shown, count=voxels) if voxels else _(
        "{segment}: empty").format(segment=shown)
