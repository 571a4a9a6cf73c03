"""Runs of this computer that wait for those before them: a mark in the run folder, so that it survives Slicer."""

from __future__ import annotations

from pathlib import Path

from medmae.errors import BadInput
from medmae.folder_lock import only_writer
from medmae.home import runs_folder
from medmae.run_folder import RunFolder
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunListing import RunListing
from MedMAETrainLib.RunRequest import requestOf
from MedMAETrainLib.RunStatus import WAITING_MARK

COMPUTING = ("queued", "running", "stopping")


def enqueue(run: RunFolder) -> None:
    """Put a run at the end of the queue."""
    (run.path / WAITING_MARK).touch()


def isWaiting(run: RunFolder) -> bool:
    """Whether a run is in the queue."""
    return (run.path / WAITING_MARK).exists()


def leaveQueue(run: RunFolder) -> bool:
    """Take a run out of the queue; whether it was there. Of several that ask, one is told so."""
    try:
        (run.path / WAITING_MARK).unlink()
    except FileNotFoundError:
        return False
    return True


def takeTurn(run: RunFolder, listing: RunListing) -> bool:
    """Take a run out of the queue if it is the first there and nothing is computed; whoever was told so starts it."""
    if _isBefore(run, listing):
        return False
    try:
        with only_writer(runs_folder()):
            if _isBefore(run, listing) or any(map(_computesHere, listing.entries())):
                return False
            run.write_state(state="queued")  # the time counts: somebody is about to start it
            return leaveQueue(run)
    except (BadInput, OSError):  # another Slicer is just looking, or the disk is full: it waits on
        return False


def _isBefore(run: RunFolder, listing: RunListing) -> bool:
    """Whether another one is before this one in the queue; a damaged one, which nobody would start, holds nobody up."""
    marks = sorted(runs_folder().glob(f"*/{WAITING_MARK}"), key=_when)
    return next((mark for mark in marks if _canStart(mark.parent, listing)), None) != run.path / WAITING_MARK


def _canStart(folder: Path, listing: RunListing) -> bool:
    entry = listing.entry(folder)
    return entry is not None and entry.status.state == "waiting" and requestOf(folder) is not None


def _when(mark: Path) -> tuple[int, str]:
    try:
        return mark.stat().st_mtime_ns, mark.parent.name
    except FileNotFoundError:  # it is being started at this moment: nobody is before it
        return 0, mark.parent.name


def _computesHere(entry: RunEntry) -> bool:
    return entry.isHere and entry.status.state in COMPUTING
