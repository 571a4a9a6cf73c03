"""All images of a folder, segmented by one job on another computer, with the results fetched into files here."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medmae.files import atomic_path, read_json, write_text
from medmae.folder_lock import only_writer
from medmae.inference.cases import FoundCase
from medmae.inference.manifest import MANIFEST, Manifest, read_manifest
from medmae.inference.summary import SUMMARY, summary_text
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.BatchCase import summaryOf
from MedMAESegmentLib.FolderBatchJob import bookOf, noteRecord
from MedMAESegmentLib.FolderListing import FORMAT, FolderListing
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed, duration
from MedMAESegmentLib.Translation import tr as _

LOOK_EVERY_SECONDS = 1.0
RESULTS = "outputs"  # of a job, in its folder here
_FETCHING = threading.Lock()  # a batch that was cancelled in that moment goes on with it, and the next one waits


class RemoteFolderBatchJob(FollowedJob):
    """The cases are in `cases`, their results are files, fetched when the job over there has ended.

    The results of a job that was cancelled, or that Slicer's end has left alone, are not lost: started again, the batch
    follows that job or takes what it has finished, and submits only what is missing. Everything that talks to the
    target happens in a thread.
    """

    def __init__(self, target: str, settings: dict[str, Any], modelFolder: Path, listing: FolderListing,
                 again: bool = False) -> None:
        """`settings` are the engine's, without the format."""
        super().__init__()
        self.book = bookOf(listing, again)
        self.cases = self.book.cases
        self._listing, self._again = listing, again
        self._indexOf = {str(image.path): index for index, image in enumerate(listing.images)}
        self._todo = [index for index, case in enumerate(self.cases) if case.state == "waiting"]
        self._told: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        config = {**settings, "format": FORMAT}
        self._task: BackgroundTask = BackgroundTask(lambda: self._compute(target, config, str(modelFolder)))

    def poll(self) -> bool:
        """Take in what the thread has said; True once the job has ended."""
        while not self._ended and not self._told.empty():
            self.state = "running"
            self._told.get()()
        if not self._ended and self._task.isOver and self._told.empty():
            self._take()
        return self._ended

    def cancel(self) -> None:
        """End the job at once; the target is told in the background. What it has finished is taken another time."""
        if not self._ended:
            self._stop.set()
            self.book.cancelOpen()
            self.error = RunCancelled(_("Cancelled."))
            self._end("cancelled")

    def _take(self) -> None:
        try:
            self._task.result()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong over there belongs to the job's caller
            self.error = error
        self.book.cancelOpen()
        if self.error is None and self.cases and not any(case.state == "done" for case in self.cases):
            self.error = RunFailed(summaryOf(self.cases))
        self.result = self.cases if self.error is None else None
        self.message = summaryOf(self.cases)
        self._end("done" if self.error is None else "failed")

    def _compute(self, target: str, config: dict[str, Any], model: str) -> None:
        """Take what an earlier job has finished, and have the rest done; in the thread."""
        from medmae.jobs.following import follow
        from medmae.jobs.stopping import stop
        from medmae.jobs.submission import submit
        from medmae.jobs.targets import get_target

        where, name = get_target(target), self._jobName(target)
        earlier = _jobCalled(name)
        if earlier is not None and self._again:
            if not follow(earlier).is_final:
                stop(earlier, hard=True)
        elif earlier is not None:
            self._await(earlier)  # however it has ended: the rest is submitted anew
        missing = [index for index in self._todo if self._again or not self._isFinished(index)]
        if missing:
            images = [str(self._listing.images[index].path) for index in missing]
            problem = self._await(submit(where, "segment", config, {"model": model, "images": images}, name=name))
            if problem:
                raise RunFailed(problem)

    def _isFinished(self, index: int) -> bool:
        image = self._listing.images[index]
        _header, records = read_manifest(self._listing.out / MANIFEST)
        record = records.get(self._stemOf(index))
        return record is not None and image.output.is_file() and record["stamp"] == FoundCase((image.path,), "").stamp()

    def _await(self, job: Any) -> str:
        """Follow a job until its end and take its results; returns why it has not come to all of its images, or ""."""
        from medmae.jobs.fetching import fetch
        from medmae.jobs.following import follow
        from medmae.jobs.stopping import stop

        offset = 0
        while True:
            status = follow(job)
            offset = self._tellProgress(job, status, offset)
            if status.is_final:
                break
            if self._stop.wait(LOOK_EVERY_SECONDS):
                stop(job, hard=True)
                raise RunCancelled(_("Cancelled."))
        job = job.refreshed()
        problem = " ".join(part for part in (status.reason, status.remedy) if part)
        if job.folder is None:  # it has not come to a run
            return problem
        self._tell(1.0, _("Fetching the results"), isOfAll=True)
        with _FETCHING:
            fetch(job, partial=True)
            count = self._deliver(job)
        return problem if status.state != "done" and count < len(_sentBy(job)) else ""

    def _tellProgress(self, job: Any, status: Any, offset: int) -> int:
        """Hand on what is new in the job's progress, from byte `offset` on; returns where it ends now."""
        file = job.mirror / "progress.jsonl"
        if file.is_file():
            with open(file, "rb") as stream:
                stream.seek(offset)
                text, newline, _rest = stream.read().rpartition(b"\n")
            offset += len(text) + len(newline)
            records = [json.loads(line) for line in text.splitlines()]
            if records:
                self._told.put(lambda: self._noteRecords(records, _sentBy(job)))
        share = status.step / status.total if status.step and status.total and status.state == "running" else 0.0
        self._tell(share, _textOf(status), isOfAll=status.state != "running")
        return offset

    def _noteRecords(self, records: list[dict[str, Any]], sent: list[str]) -> None:
        indices = [self._indexOf[image] for image in sent if image in self._indexOf]
        if len(indices) < len(sent):  # of a job with images that are not in the folder any more
            return
        for record in records:
            if record.get("ended") == "done":  # there; it is done when its file is here
                self.book.note(indices[record["case"] - 1], state="running", message=_("Done there, comes at the end"))
            else:
                noteRecord(self.book, record, [], indices)

    def _deliver(self, job: Any) -> int:
        """Put the results of a job where they belong, and note them as the engine does; returns how many ended."""
        _header, found = read_manifest(job.mirror / RESULTS / MANIFEST)
        records = [record for record in found.values() if record["result"]["image"] in self._indexOf]
        out, failed = self._listing.out, self._failures(job)
        if not records and not failed:
            return 0
        with only_writer(out):
            manifest, stamps = Manifest(out, self._listing.options, resume=not self._again), _stampsOf(job)
            manifest.begin()  # also where all have failed: else the summary would be taken for something else
            for record in records:
                self._takeOne(record, manifest, stamps)
            _header, known = read_manifest(out / MANIFEST)
            write_text(out / SUMMARY, summary_text([record["result"] for record in known.values()], failed))
        return len(records) + len(failed)

    def _takeOne(self, record: dict[str, Any], manifest: Manifest, stamps: dict[str, list[list[int]]]) -> None:
        """Take the result of a case, unless it was taken before, or its image has changed since it travelled."""
        result = record["result"]
        index = self._indexOf[result["image"]]
        image, stem = self._listing.images[index], self._stemOf(index)
        case = FoundCase((image.path,), stem)
        stamp = stamps.get(result["image"], record["stamp"])
        if stamp != case.stamp():
            return
        files = _moved(result, stem, self._listing.out)
        if not all(file.is_file() for file in files.values()):
            return
        if self._again or manifest.finished(case) is None:
            told = {**result, **{key: str(file) for key, file in files.items()}}
            manifest.add(case, list(files.values()), told, stamp)
        self._note(index, state="done", message="", result=image.output, seconds=result["seconds"])

    def _failures(self, job: Any) -> list[dict[str, str]]:
        file = job.mirror / "result.json"
        failed = read_json(file)["failed"] if file.is_file() else []
        for failure in failed:
            if failure["image"] in self._indexOf:
                self._note(self._indexOf[failure["image"]], state="failed", message=failure["reason"])
        return failed

    def _stemOf(self, index: int) -> str:
        output = self._listing.images[index].output.relative_to(self._listing.out).as_posix()
        return output.removesuffix(f".{FORMAT}")

    def _jobName(self, target: str) -> str:
        """What the job of these images with these options on this target is called, by which it is found again."""
        key = json.dumps([target, str(self._listing.folder), str(self._listing.out), self._listing.options],
                         sort_keys=True)
        plain = re.sub(r"[^\w .+-]", "", self._listing.folder.name).strip() or "folder"
        return f"batch {plain[:60]} {hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def _note(self, index: int, **changes: Any) -> None:
        self._told.put(lambda: self.book.note(index, **changes))

    def _tell(self, fraction: float, message: str, isOfAll: bool) -> None:
        def tell() -> None:
            self.book.told = message if isOfAll else ""
            self._progress(fraction, message)

        self._told.put(tell)


def _textOf(status: Any) -> str:
    """How the job stands: ``Submitting: convert, about 20 s left``."""
    text = f"{status.state[:1].upper()}{status.state[1:]}" + (f": {status.stage}" if status.stage else "")
    text += f" ({status.queue})" if status.queue else ""
    if status.state == "unreachable":
        return f"{text}. {status.reason}"
    return text if status.eta_s is None else text + _(", about {time} left").format(time=duration(status.eta_s))


def _jobCalled(name: str) -> Any:
    from medmae.jobs.job import list_jobs

    return next((job for job in list_jobs() if job.name == name and job.kind == "segment"), None)


def _casesOf(job: Any) -> list[dict[str, Any]] | None:
    """The cases that have travelled; None: the job runs on this computer, or has not come so far."""
    from medmae.jobs.gathering import CASES_FILE

    file = job.mirror / CASES_FILE
    return list(read_json(file)["cases"].values()) if file.is_file() else None


def _sentBy(job: Any) -> list[str]:
    """The images of a job, in the order of its progress."""
    cases = _casesOf(job)
    if cases is None:
        return list(read_json(job.mirror / "spec.json")["inputs"]["images"])
    return [case["images"][0] for case in cases]


def _stampsOf(job: Any) -> dict[str, list[list[int]]]:
    """What the images were when they travelled."""
    return {case["images"][0]: case["stamp"] for case in _casesOf(job) or []}


def _moved(result: dict[str, Any], stem: str, out: Path) -> dict[str, Path]:
    """Move the files of a case out of the job's folder; what was moved before is there already."""
    files = {}
    for key, ending in (("uncertainty", "uncertainty.nii.gz"), ("output", FORMAT)):
        if key not in result:
            continue
        source, files[key] = Path(result[key]), out / f"{stem}.{ending}"
        if source.is_file():
            files[key].parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(files[key]) as temporary:
                shutil.copyfile(source, temporary)
            source.unlink()
    return files
