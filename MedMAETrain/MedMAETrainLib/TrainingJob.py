"""One run of pretraining or finetuning, wherever it computes: follow it, end it, take its model into the list."""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import Any

from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FollowedJob import RunFailed, asSentence
from MedMAESegmentLib.RunJob import RunJob
from MedMAESegmentLib.Signal import Signal

from medmae.errors import BadInput
from medmae.run_folder import RunFolder
from MedMAETrainLib.RunRequest import changeRequest, readRequest
from MedMAETrainLib.RunStatus import RunStatus

log = logging.getLogger(__name__)


class TrainingJob(RunJob):
    """Follows a run of kind "pretrain" or "finetune"; its `result` is the name of the installed model.

    ``progressed(fraction, message)``, ``recorded(record)``: as it computes; ``changed(job)``: its state is another
    one; ``finished(job)``: it has ended, and its model was taken. What Slicer wants done with the model stands in the
    run folder, so that the next Slicer can do it: neither the end of Slicer nor of `wait` ends the run.
    """

    pollIntervalMs = 500
    endsWithCaller = False
    target = ""  # where it computes; "": on this computer

    def __init__(self, run: RunFolder, process: ChildProcess | None = None) -> None:
        """
        Raises:
            BadInput: the folder is not that of a run of MedMAETrain, or is damaged.
        """
        super().__init__(run, process)
        self.changed = Signal()
        self.id = run.path.name
        self.kind: str = run.spec["kind"]
        self._request = readRequest(run.path)
        self._status = RunStatus("queued")
        self._record: dict[str, Any] = {}  # the last one of its progress that counts something
        self.recorded.connect(self._noteRecord)

    @property
    def task(self) -> str:
        """What is learned: "pretraining", "segmentation" or "classification"."""
        return "pretraining" if self.kind == "pretrain" else self._request.task or "segmentation"

    @property
    def modelName(self) -> str:
        """The name that the finished model gets in the list of models, with a number where it is taken."""
        return self._request.name

    @property
    def status(self) -> RunStatus:
        """How it stands, as far as is known now."""
        return self._status

    @abstractmethod
    def stop(self) -> None:
        """Ask the run to stop gracefully; what it has learned so far stays and can be gone on with. Returns at once."""

    def _noteRecord(self, record: dict[str, Any]) -> None:
        if isinstance(record.get("step"), int):
            self._record = record

    def _setStatus(self, status: RunStatus) -> None:
        before, self._status = self._status, status
        if status.state != before.state:
            self.changed.emit(self)

    def _fail(self, error: Exception) -> None:
        """End without a model, although the run has one."""
        self.error = error
        self._setStatus(RunStatus("failed", reason=str(error)))
        self._end("failed")

    def _cleanUp(self) -> None:
        if self.run.path.is_dir():
            problem = self._status.reason if self._status.state == "failed" else None
            try:
                self._request = changeRequest(self.run.path, told=True, problem=problem)
            except (OSError, BadInput) as error:  # then the next Slicer tells it again
                log.warning("The run %s could not be marked as seen: %s", self.run.path, error)


def whyNoModel(status: RunStatus) -> RunFailed:
    """The error of a run that has ended without a model."""
    parts = [status.reason, status.remedy]
    return RunFailed(" ".join(asSentence(part) for part in parts if part) or status.state)
