"""What the tab "Batch" says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slicer.i18n import tr as _

from MedMAESegmentLib.BatchCase import BatchCase
from MedMAESegmentLib.FolderListing import FolderListing
from MedMAESegmentLib.FollowedJob import RunCancelled, duration
from MedMAESegmentLib.Panel.Choices import Choices

FAILURES_TOLD = 3


def progressText(job: Any) -> str:
    """How far a batch is: ``Case 3 of 12, about 4 min left``."""
    book = job.book
    if book.told or book.running is None:
        return book.told or job.message
    text = _("Case {number} of {count}").format(number=book.running + 1, count=len(book.cases))
    if book.secondsLeft is not None:
        text += _(", about {time} left").format(time=duration(book.secondsLeft))
    return text


def summaryText(job: Any) -> str:
    """How a batch has ended: ``11 done, 1 failed`` and why."""
    cases: Sequence[BatchCase] = job.cases
    failed = [case for case in cases if case.state == "failed"]
    counts = [(_("{number} done"), sum(case.state == "done" and not case.wasDoneBefore for case in cases)),
              (_("{number} done before"), sum(case.state == "done" and case.wasDoneBefore for case in cases)),
              (_("{number} failed"), len(failed)),
              (_("{number} not done"), sum(case.state == "cancelled" for case in cases))]
    text = ", ".join(template.format(number=number) for template, number in counts if number)
    if isinstance(job.error, RunCancelled):
        text = _("Cancelled: {counts}").format(counts=text)
    lines = [f"{case.name}: {case.message}" for case in failed[:FAILURES_TOLD]]
    if len(failed) > FAILURES_TOLD:
        lines.append(_("The table tells why the others have failed."))
    if hasBrokenOff(job):
        lines.append(str(job.error))
    return "\n".join([f"{text}.", *lines])


def hasBrokenOff(job: Any) -> bool:
    """Whether it has ended too early, for a reason that is not with the cases that failed."""
    if job.error is None or isinstance(job.error, RunCancelled):
        return False
    return not any(case.state == "failed" for case in job.cases) or any(
        case.state == "cancelled" for case in job.cases)


def hintText(choices: Choices, listing: FolderListing | None, isFolder: bool) -> str:
    """What is worth knowing before a batch is started."""
    hints = []
    if isFolder and listing is not None and listing.difference:
        hints.append(_("The results in {folder} were made with other choices ({difference}). Choose another folder for "
                       "the results, or do them again.").format(folder=listing.out, difference=listing.difference))
    if choices.target is not None:
        hints.append(_("All images are one job on {target}; the results come when it has ended.") if isFolder else _(
            "Each volume is a job of its own on {target}, one after the other."))
        hints[-1] = hints[-1].format(target=choices.target)
    if isFolder and "smoothing" in choices.options:
        hints.append(_("Files hold voxels, no surfaces: smoothing is left out."))
    return "\n".join(hints)
