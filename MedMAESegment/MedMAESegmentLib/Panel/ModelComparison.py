"""What a newer version of a model changes."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from MedMAESegmentLib.Panel import ModelFacts as facts

_MOST_NAMES = 20  # so that the dialog with its buttons fits on the screen


def comparison(installed: Any, new: Any) -> str:
    """Date, cases, score and structures of two models, one a line, with what a person should notice."""
    lines = [_line(title, tell(installed), tell(new)) for title, tell in (
        (_("Date"), facts.date), (_("Training cases"), _cases), (_("Score"), _score), (_("Modality"), facts.modality))]
    before, after = facts.structures(installed), facts.structures(new)
    added, lost = [name for name in after if name not in before], [name for name in before if name not in after]
    lines.append(_("Structures: the same {number}").format(number=len(after)) if not added and not lost
                 else _("Structures: {number}").format(number=len(after)))
    lines += [_("New: {names}").format(names=facts.listed(added, _MOST_NAMES))] if added else []
    lines += [_("No longer there: {names}").format(names=facts.listed(lost, _MOST_NAMES))] if lost else []
    if installed.weights_sha256 == new.weights_sha256:
        lines.append(_("Both are the same: nothing would change but the description."))
    elif facts.date(new) < facts.date(installed):
        lines.append(_("The new one is older than the installed one."))
    return "\n".join(lines)


def _line(title: str, before: str, after: str) -> str:
    before, after = before or _("not known"), after or _("not known")
    if before == after:
        return f"{title}: {after}"
    return _("{title}: {before}, then {after}").format(title=title, before=before, after=after)


def _cases(info: Any) -> str:
    cases = facts.trainingCases(info)
    return "" if cases is None else str(cases)


def _score(info: Any) -> str:
    score = facts.score(info)
    return score.text if score is not None else ""
