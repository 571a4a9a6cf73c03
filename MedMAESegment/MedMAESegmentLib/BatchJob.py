"""Many volumes of the scene, segmented one after the other; a bad one does not take the others down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import slicer

from MedMAESegmentLib.Application import processEvents
from MedMAESegmentLib.BatchCase import BatchCase, CaseBook, summaryOf
from MedMAESegmentLib.FileErrors import explained
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed
from MedMAESegmentLib.NodeReference import NodeReference
from MedMAESegmentLib.SegmentationFile import SegmentationFile, freePath, isSavedIn, noteSaved
from MedMAESegmentLib.Translation import tr as _

Start = Callable[[slicer.vtkMRMLVolumeNode], FollowedJob]


class BatchJob(FollowedJob):
    """The cases are in `cases`; `result` is that list. Voxels are handed over when a case's turn has come.

    Volumes that have a result of this very model already are done: started again, a batch goes on where it ended.
    """

    def __init__(self, volumeNodes: Sequence[slicer.vtkMRMLVolumeNode], start: Start, modelVersion: str,
                 outputFolder: Path | None = None, again: bool = False) -> None:
        """`start` begins the segmentation of one volume; results are also saved in `outputFolder`, where they are not
        there yet. `again`: also of volumes that are done, which keep their earlier results."""
        super().__init__()
        self.book = CaseBook([BatchCase(node.GetName()) for node in volumeNodes])
        self.cases = self.book.cases
        self._volumes = [NodeReference(node) for node in volumeNodes]
        self._clock = _Clock([float(node.GetImageData().GetNumberOfPoints()) for node in volumeNodes])
        self._start, self._outputFolder = start, outputFolder
        self._job: FollowedJob | None = None
        self._files: dict[int, SegmentationFile] = {}
        self._unsaved: list[int] = []
        self._index, self._isBusy = -1, False
        earlier = {} if again else resultsOf(modelVersion)
        for index, node in enumerate(volumeNodes):
            result = earlier.get(node.GetID())
            if result is not None:
                self.book.noteDoneBefore(index, result)
                self._clock.leaveOut(index)
                if outputFolder is not None and not isSavedIn(result, outputFolder):
                    self._unsaved.append(index)

    def poll(self) -> bool:
        """Look after the case that is being segmented and the files that are being written, or start the next."""
        if self._ended or self._isBusy:
            return self._ended
        self._noteFiles()
        if self._job is not None and not self._job.poll():
            return False
        if self._job is not None:
            self._note(self._job)
        if self._ended:  # cancelled while the voxels of the result were copied
            return True
        following = self.book.following
        if following is not None:
            self._begin(following)
        elif self._unsaved:
            self._save(self._unsaved.pop(0))
        elif not self._files:
            self._finish()
        return self._ended

    def cancel(self) -> None:
        """End the case that is being segmented, and leave out those that wait; what is done stays."""
        if self._ended:
            return
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
        self.book.cancelOpen()
        self.error = RunCancelled(_("Cancelled."))
        self._end("cancelled")

    def _begin(self, index: int) -> None:
        case, node = self.cases[index], self._volumes[index].node
        self._index, self.state = index, "running"
        self.book.note(index, state="running", message=_("Starting"))
        self._clock.begin(index)
        self._isBusy = True
        try:
            if node is None:
                raise ValueError(_("{name} was removed from the scene.").format(name=case.name))
            job = self._start(node)
        except Exception as error:  # noqa: BLE001 - belongs to this case, the others go on
            if case.state == "running":
                self._clock.end(index)
                self.book.note(index, state="failed", message=str(error))
            return
        finally:
            self._isBusy = False
        if self._ended:  # cancelled while the voxels were handed over
            job.cancel()
            return
        self._job = job
        job.progressed.connect(self._onProgress)
        self._onProgress(0.0, _("Starting"))

    def _onProgress(self, fraction: float, message: str) -> None:
        self.book.secondsLeft = self._clock.secondsLeft(self._index, fraction)
        self.book.note(self._index, message=message)
        done = sum(one.state not in ("waiting", "running") for one in self.cases)
        self._progress((done + fraction) / len(self.cases), f"{self.cases[self._index].name}: {message}")

    def _note(self, job: FollowedJob) -> None:
        self._job, index = None, self._index
        seconds = self._clock.end(index)
        if job.error is not None:
            state = "cancelled" if isinstance(job.error, RunCancelled) else "failed"
            self.book.note(index, state=state, message=str(job.error))
            return
        self.book.note(index, state="done", message="", result=job.result, seconds=seconds)
        self._save(index)

    def _save(self, index: int) -> None:
        volumeNode, case = self._volumes[index].node, self.cases[index]
        if self._outputFolder is None or volumeNode is None:
            return
        path = freePath(self._outputFolder, case.name, [file.path for file in self._files.values()])
        try:
            self._isBusy = True
            self._files[index] = SegmentationFile(path, case.result, volumeNode, processEvents)
        except Exception as error:  # noqa: BLE001 - a segmentation that somebody changed; the others go on
            self._noteUnsaved(index, error)
        finally:
            self._isBusy = False

    def _noteFiles(self) -> None:
        for index, file in list(self._files.items()):
            if not file.isOver:
                continue
            try:
                noteSaved(self.cases[index].result, file.result())
                del self._files[index]
            except Exception as error:  # noqa: BLE001 - of whatever kind: it belongs to this case
                del self._files[index]
                self._noteUnsaved(index, error)

    def _noteUnsaved(self, index: int, error: Exception) -> None:
        self.book.note(index, state="failed", message=_(
            "The result is in the scene but could not be saved: {reason}").format(reason=explained(error)))

    def _finish(self) -> None:
        self.result = self.cases
        if self.cases and not any(case.state == "done" for case in self.cases):
            self.error = RunFailed(summaryOf(self.cases))
        self._end("done" if self.error is None else "failed")


class _Clock:
    """Tells the time left from the voxels of the cases and what those done so far have taken."""

    def __init__(self, sizes: list[float]) -> None:
        self._open = dict(enumerate(sizes))
        self._sizes, self._size, self._seconds, self._begun = sizes, 0.0, 0.0, 0.0

    def leaveOut(self, index: int) -> None:
        """This case takes no time."""
        self._open.pop(index, None)

    def begin(self, index: int) -> None:
        """This case begins now."""
        self._begun = time.monotonic()

    def end(self, index: int) -> float:
        """This case has ended; returns the seconds that it took."""
        seconds = time.monotonic() - self._begun
        self._open.pop(index, None)
        self._size, self._seconds = self._size + self._sizes[index], self._seconds + seconds
        return seconds

    def secondsLeft(self, index: int, fraction: float) -> float | None:
        """Seconds until all cases have ended, of which `index` is done to `fraction`; None: not known yet."""
        done = self._size + fraction * self._sizes[index]
        left = sum(self._open.values()) - fraction * self._sizes[index]
        return (self._seconds + time.monotonic() - self._begun) / done * left if done else None


def resultsOf(modelVersion: str) -> dict[str, slicer.vtkMRMLSegmentationNode]:
    """The segmentations in the scene that a model made, by the ID of the volume; of several the newest."""
    role, found = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), {}
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute("MedMAE.modelVersion") == modelVersion and node.GetNodeReferenceID(role):
            found[node.GetNodeReferenceID(role)] = node
    return found
