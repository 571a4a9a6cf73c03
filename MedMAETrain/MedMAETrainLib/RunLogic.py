"""The part of the logic that knows the runs of training: listed, followed, stopped, resumed, removed."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from MedMAESegmentLib.Background import BackgroundTask, inBackground
from MedMAESegmentLib.Signal import Signal
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import PARTIAL
from medmae.home import runs_folder
from medmae.jobs.job import RECORD as JOB_FILE
from medmae.jobs.job import load_job
from medmae.run_folder import RunFolder
from MedMAETrainLib.LocalTrainingJob import LocalTrainingJob
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectLogic import ProjectLogic, noteModel
from MedMAETrainLib.RemoteTrainingJob import RemoteTrainingJob
from MedMAETrainLib.RunEntry import RunEntry
from MedMAETrainLib.RunListing import RunListing, isAbandoned
from MedMAETrainLib.RunNames import ownNames
from MedMAETrainLib.RunRequest import REQUEST_FILE, RunRequest, changeRequest, readRequest, requestOf, writeRequest
from MedMAETrainLib.TrainingJob import TrainingJob

MOST_LOG_BYTES = 1 << 20
_ABANDONED_SECONDS = 86400.0
_CONSOLE_FILE = "console.txt"  # what a process said before it had a log
log = logging.getLogger(__name__)


class RunLogic(ProjectLogic):
    """Runs of training, here and elsewhere. ``runsChanged()`` comes whenever one has begun, ended or changed its state.

    >>> logic.runs()[0].status.state
    'running'
    """

    def __init__(self) -> None:
        super().__init__()
        self.engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here
        self.jobs: list[TrainingJob] = []  # those that are followed
        self.runsChanged = Signal()
        self._listing = RunListing()

    def runs(self, project: Project | None = None) -> list[RunEntry]:
        """All runs of pretraining and finetuning that this computer knows, or those of a project; the newest first.

        Quick, and asks no other computer: of a run elsewhere it tells what was last known.
        """
        followed = {job.id: job for job in self.jobs}
        entries = [replace(entry, status=followed[entry.id].status) if entry.id in followed else entry
                   for entry in self._listing.entries()]
        if project is None:
            return entries
        known = {run.id for run in project.runs}
        return [entry for entry in entries if entry.project == project.uid or entry.id in known]

    def job(self, runId: str) -> TrainingJob | None:
        """The job of a run that is followed; None: it has ended, or nobody follows it."""
        return next((job for job in self.jobs if job.id == runId), None)

    def findRunning(self) -> list[TrainingJob]:
        """Follow runs that an earlier Slicer has started, here and elsewhere, and start those that wait.

        Runs that have ended meanwhile tell it, and give their models.
        """
        found = []
        for entry in reversed(self.runs()):
            if self.job(entry.id) is None and (entry.folder / REQUEST_FILE).is_file():
                try:
                    if _isOpen(entry, readRequest(entry.folder)):
                        found.append(self._follow(self._jobOf(entry)))
                except (BadInput, OSError) as error:  # one damaged run must not hide the others
                    log.warning("The run %s is left out: %s", entry.folder, error)
        self._clearAway()
        return found

    def stopRun(self, runId: str) -> None:
        """Ask a run to stop gracefully, so that it can be resumed; one that waits leaves the queue. Returns at once.

        :raises medmae.errors.BadInput: there is no such run, or it has ended.
        """
        self._running(runId).stop()
        self.runsChanged.emit()

    def cancelRun(self, runId: str) -> None:
        """End a run within seconds; what it has computed since its last checkpoint is lost. Returns at once.

        :raises medmae.errors.BadInput: there is no such run, or it has ended.
        """
        self._running(runId).cancel()
        self.runsChanged.emit()

    def startRunNow(self, runId: str) -> TrainingJob:
        """Start a run that waits in the queue, although others are computing.

        :raises medmae.errors.BadInput: it does not wait.
        """
        entry = self._entry(runId)
        job = self._running(runId) if entry.status.state == "waiting" else None
        if not isinstance(job, LocalTrainingJob):
            raise BadInput(_("The run {name} does not wait in the queue.").format(name=entry.name))
        job.start()
        self.runsChanged.emit()
        return job

    def resumeRun(self, runId: str) -> TrainingJob:
        """Go on with a run that was stopped, interrupted or has failed, from its checkpoint and with its settings.

        :raises medmae.errors.BadInput: there is no such run, or nothing to go on with.
        :raises OSError: its process cannot be started.
        """
        entry = self._entry(runId)
        if not entry.canResume or self.job(runId) is not None:
            text = _("The run {name} cannot be resumed: it is under way, done, or has failed before there was anything "
                     "to go on with. Start a new one.")
            raise BadInput(text.format(name=entry.name))
        job = self._adopted(entry, isResumed=True)
        if isinstance(job, LocalTrainingJob):
            job.start()
        return self._follow(job)

    def fetchRun(self, runId: str) -> TrainingJob:
        """Follow a run from now on, also one that the command line has started, and take its model when it is done.

        :raises medmae.errors.BadInput: there is no such run.
        """
        job = self.job(runId)
        return job if job is not None else self._follow(self._adopted(self._entry(runId)))

    def removeRun(self, runId: str, onlyHere: bool = False) -> None:
        """Delete a run that is not under way, with everything in its folder, here and on its target; its model in the
        list stays. The application lives on meanwhile.

        :param onlyHere: forget a run of a target that will not answer again; what is there stays and goes on.
        :raises medmae.errors.BadInput: there is no such run, or it is under way.
        :raises medmae.jobs.problems.TargetProblem: its target does not answer; nothing is deleted.
        """
        entry, job = self._entry(runId), self.job(runId)
        isLost = onlyHere and entry.status.state != "submitting" and not entry.isHere
        if not (entry.status.isFinal or entry.status.state == "waiting" or isLost):
            text = _("The run {name} is under way. Stop it first, then remove it.")
            raise BadInput(text.format(name=entry.name))
        if isLost and job is not None:
            job.stopFollowing()
            self.jobs.remove(job)
        elif job is not None:
            job.stop()  # it waits, and leaves the queue
        if (entry.folder / JOB_FILE).is_file() and not onlyHere:
            from medmae.jobs.stopping import remove

            inBackground(lambda: remove(load_job(entry.id)))
        else:
            self._delete(entry.folder)
        self.runsChanged.emit()

    def logText(self, runId: str) -> str:
        """The log of a run as far as it has come, of a long one the end; cases are called by their own names.

        :raises medmae.errors.BadInput: there is no such run.
        """
        from medmae.jobs.following import log_file

        folder = self._entry(runId).folder
        if (folder / JOB_FILE).is_file():
            file = log_file(load_job(folder.name))
        else:
            files = (folder / name for name in (RunFolder(folder).log_file.name, _CONSOLE_FILE))
            file = next((file for file in files if file.is_file() and file.stat().st_size), None)
        return "" if file is None else ownNames(folder, _endOf(file))

    def reportFile(self, runId: str) -> Path | None:
        """The report of a run that is done; None: there is none.

        :raises medmae.errors.BadInput: there is no such run.
        """
        file = RunFolder(self._entry(runId).folder).report
        return file if file.is_file() else None

    def _follow(self, job: TrainingJob) -> TrainingJob:
        self.jobs.append(job)
        job.changed.connect(lambda _job: self.runsChanged.emit())
        job.finished.connect(self._onFinished)
        job.startFollowing()
        if job.status.state == "waiting":  # for runs of another Slicer, too, which may end before these begin
            self.findRunning()
        self.runsChanged.emit()
        return job

    def _onFinished(self, job: TrainingJob) -> None:
        self.jobs.remove(job)
        for project in self._projects.values():
            for run in project.runs:
                if run.id == job.id and project.isOpen:
                    try:
                        noteModel(project, run)
                    except (BadInput, ValueError) as error:  # it is noted when the project is opened again
                        log.warning("The model of the run %s could not be noted in its project: %s", run.id, error)
        self.runsChanged.emit()

    def _entry(self, runId: str) -> RunEntry:
        entry = next((entry for entry in self.runs() if entry.id == runId), None)
        if entry is None:
            raise BadInput(_("There is no run {run} any more.").format(run=runId))
        return entry

    def _running(self, runId: str) -> TrainingJob:
        entry, job = self._entry(runId), self.job(runId)
        if job is None and entry.status.isFinal:
            raise BadInput(_("The run {name} has ended already.").format(name=entry.name))
        return job or self._follow(self._adopted(entry))

    def _adopted(self, entry: RunEntry, isResumed: bool = False) -> TrainingJob:
        """The job of a run that nobody follows, which may be one of the command line."""
        if requestOf(entry.folder) is None:
            writeRequest(entry.folder, RunRequest(entry.name, entry.task, started=entry.started))
        changeRequest(entry.folder, told=False, problem=None)
        return self._jobOf(entry, isResumed)

    def _jobOf(self, entry: RunEntry, isResumed: bool = False) -> TrainingJob:
        if (entry.folder / JOB_FILE).is_file():
            return RemoteTrainingJob(load_job(entry.id), resume=isResumed)
        return LocalTrainingJob(RunFolder(entry.folder), command=self.engineCommand, listing=self._listing)

    def _delete(self, folder: Path) -> None:
        """Take a folder out of sight at once; its files, which may be many, go in a thread."""
        beside = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=folder.parent))
        try:
            folder.rename(beside / folder.name)
        except OSError as error:
            beside.rmdir()
            raise BadInput(_("{folder} cannot be removed ({reason}).").format(
                folder=folder, reason=error.strerror)) from error
        BackgroundTask(lambda: shutil.rmtree(beside, ignore_errors=True))

    def _clearAway(self) -> None:
        """Remove what somebody who was killed has left while removing a run or handing cases over."""
        before = time.time() - _ABANDONED_SECONDS
        for folder in runs_folder().glob("*") if runs_folder().is_dir() else ():
            isRest = folder.name.startswith(PARTIAL) or isAbandoned(folder)
            if isRest and folder.stat().st_mtime < before:
                BackgroundTask(functools.partial(shutil.rmtree, folder, ignore_errors=True))


def _isOpen(entry: RunEntry, request: RunRequest) -> bool:
    """Whether something is still to be said of a run, or its model to be taken."""
    if not entry.status.isFinal:
        return True
    if request.installed is not None or request.problem:
        return False
    return not request.told or entry.status.state == "done"


def _endOf(file: Path) -> str:
    with open(file, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - MOST_LOG_BYTES))
        return stream.read().decode("utf-8", errors="replace")
