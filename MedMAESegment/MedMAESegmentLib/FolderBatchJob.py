"""All images of a folder, segmented into files by one run of the engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from medmae.run_folder import RunFolder
from MedMAESegmentLib.BatchCase import BatchCase, CaseBook, summaryOf
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FolderListing import FolderListing
from MedMAESegmentLib.RunJob import RunJob


class FolderBatchJob(RunJob):
    """The cases are in `cases`, their results are files; `result` is that list.

    What is finished is noted beside the results by the engine: started again, the batch goes on where it ended.
    """

    def __init__(self, run: RunFolder, process: ChildProcess, listing: FolderListing, again: bool = False) -> None:
        """The run lies in a temporary folder that is removed at the end; its images are those of the listing, in this
        order."""
        super().__init__(run, process)
        self.book = bookOf(listing, again)
        self.cases = self.book.cases
        self._outputs = [image.output for image in listing.images]
        self._byImage = {image.name: index for index, image in enumerate(listing.images)}
        self.recorded.connect(lambda record: noteRecord(self.book, record, self._outputs))

    def cancel(self) -> None:
        """End the run; finished cases stay."""
        if not self._ended:
            self.book.cancelOpen()
        super().cancel()

    def _takeEnd(self, name: str, state: dict[str, Any]) -> None:
        """Some cases that failed do not make the batch a failure; the reasons are with the cases. An engine that has
        not come to all of them does."""
        self._noteResults()
        hasOpen = self.book.running is not None or self.book.following is not None
        if name == "failed" and not hasOpen and any(case.state == "done" for case in self.cases):
            name = "done"
        if name != "done":
            self.book.cancelOpen()
        super()._takeEnd(name, state)

    def _takeResult(self) -> list[BatchCase]:
        return self.cases

    def _noteResults(self) -> None:
        file = self.run.path / "result.json"
        if file.is_file():
            results = json.loads(file.read_text(encoding="utf-8"))
            noteResults(self.book, results, self._byImage)

    def _cleanUp(self) -> None:
        if self._process is not None and not self._process.waitForExit(0.05):
            self._process.killTree()
        self.message = summaryOf(self.cases)
        shutil.rmtree(self.run.path.parent, ignore_errors=True)


def bookOf(listing: FolderListing, again: bool) -> CaseBook:
    """The cases of a listing; what is done is done, unless it is to be done again."""
    names = [image.name if image.path != listing.folder else listing.folder.name for image in listing.images]
    book = CaseBook([BatchCase(name) for name in names])
    for index, image in enumerate(listing.images):
        if image.seconds is not None and not again:
            book.noteDoneBefore(index, image.output, image.seconds)
    return book


def noteRecord(book: CaseBook, record: dict[str, Any], outputs: list[Path], indices: list[int] | None = None) -> None:
    """Take in what the run says of a case: that it is at work on it, or how it ended.

    `indices`: of the run's cases in the book; None: they are the same.
    """
    number = int(record.get("case", 0)) - 1
    if not 0 <= number < len(outputs if indices is None else indices):
        return  # it is about the whole run
    index = number if indices is None else indices[number]
    book.secondsLeft = record.get("eta_s")
    ended = record.get("ended")
    if ended is not None:
        book.note(index, state=ended, message=record.get("reason", ""), seconds=record.get("case_seconds"),
                  result=outputs[index] if ended == "done" else None)
    elif book.cases[index].state in ("waiting", "running"):
        share = record["step"] * record["cases"] / record["total"] - number
        book.note(index, state="running", message=f"{min(max(share, 0.0), 1.0):.0%}")


def noteResults(book: CaseBook, results: dict[str, Any], byImage: dict[str, int]) -> None:
    """Take in what the run says of all cases at its end."""
    for result in results["cases"]:
        index = byImage.get(result["image"])
        if index is not None and book.cases[index].state != "done":  # most were told while it ran
            book.note(index, state="done", message="", result=Path(result["output"]), seconds=result["seconds"])
    for failure in results["failed"]:
        index = byImage.get(failure["image"])
        if index is not None:
            book.note(index, state="failed", message=failure["reason"])
