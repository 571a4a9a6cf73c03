"""A run of training on a target: followed in a thread, and its model brought home; a lost connection is no error."""

from __future__ import annotations

import queue
import threading
from dataclasses import fields, replace

from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.FollowedJob import RunCancelled, RunFailed
from MedMAESegmentLib.Interpreter import chosenInterpreter
from MedMAESegmentLib.RemoteProgress import progressOf
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.jobs import following
from medmae.jobs import told as telling
from medmae.jobs.conversation import OperationFailed
from medmae.jobs.job import Job
from medmae.jobs.problems import TargetProblem
from medmae.jobs.target import Target
from medmae.run_folder import RunFolder
from MedMAETrainLib.RunRequest import takeModel
from MedMAETrainLib.RunStatus import RunStatus, statusOfJob
from MedMAETrainLib.TrainingJob import TrainingJob, whyNoModel

LOOK_EVERY_SECONDS, LOOK_HERE_EVERY_SECONDS = 2.0, 0.3


class RemoteTrainingJob(TrainingJob):
    """A `TrainingJob` of a target. `run` is the mirror of its folder.

    Everything that talks to the target, and everything that takes long, happens in a thread. The run goes on there
    whatever becomes of it here; while the target does not answer the state is "unreachable".
    """

    def __init__(self, job: Job, *, resume: bool = False) -> None:
        """`job` is one that was submitted; `resume`: go on with it first."""
        super().__init__(RunFolder(job.mirror))
        self.target = job.target.name
        self._job, self._isToResume = job, resume
        self._status = RunStatus("submitting") if resume else statusOfJob(following.last_known(job), job.mirror)
        self._told: queue.SimpleQueue[following.Status] = queue.SimpleQueue()
        self._wake, self._leave = threading.Event(), threading.Event()
        self._wanted = ""  # "stop" or "cancel", until the target was told
        self._isAskedToStop = self._isCancelled = False
        self._task: BackgroundTask[str | None] | None = None

    def stop(self) -> None:
        """Ask the run to stop gracefully; what it has learned so far stays there and can be gone on with."""
        self._want("stop")

    def cancel(self) -> None:
        """End the run there within seconds; `finished` comes when the target says so."""
        self._isCancelled = True
        self._want("cancel")

    def stopFollowing(self) -> None:
        """Stop following; the computation goes on."""
        super().stopFollowing()
        if self._task is not None and not self._ended:
            self._leave.set()
            self._wake.set()
            self._task = None

    def poll(self) -> bool:
        """Take in what the thread has said; True once the run has ended and its model was taken."""
        if self._ended:
            return True
        if self._task is None:
            self._leave, self._wake = threading.Event(), threading.Event()
            leave, wake = self._leave, self._wake
            self._task = BackgroundTask(lambda: self._accompany(leave, wake))
        isOver = self._task.isOver  # before the queue: what it has said at last is in there
        self._readProgress()
        while not self._told.empty():
            self._show(self._told.get())
        if isOver and not self._ended:
            self._conclude(self._task)
        return self._ended

    def _want(self, what: str) -> None:
        if not self._ended:
            self._wanted, self._isAskedToStop = what, True
            self._setStatus(replace(self._status, state="stopping"))
            self._wake.set()

    def _show(self, told: following.Status) -> None:
        isToStop = self._isAskedToStop and told.state in ("submitting", "queued", "running")
        status = replace(statusOfJob(told, self.run.path), device=telling.text(self._record.get("device")))
        self._setStatus(replace(status, state="stopping") if isToStop else status)
        if told.stage == "fetching":
            self._progress(1.0, _("Fetching the model from {target}").format(target=self.target))
        elif self._status.state == "stopping":
            self._progress(status.fraction, _("Stopping on {target}").format(target=self.target))
        elif not told.is_final and (told.state != "running" or not self._record):  # afterwards its records tell
            self._progress(*progressOf(told, self.target))

    def _conclude(self, task: BackgroundTask[str | None]) -> None:
        try:
            self.result = task.result()
        except TargetProblem as problem:  # it was to be resumed, and was not
            self._fail(RunFailed(str(problem)))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong there belongs to the job's caller
            self._fail(error)
        else:
            state = self._status.state
            if state == "stopped" or self._isCancelled and state != "done":
                self.error = RunCancelled(_("The run was stopped on request."))
            elif state != "done":
                self.error = whyNoModel(self._status)
            self._end("cancelled" if self._isCancelled and state != "done" else state)

    # All below happens in the thread.

    def _accompany(self, leave: threading.Event, wake: threading.Event) -> str | None:
        """Follow the run to its end; returns the name of its installed model."""
        if self._isToResume:
            self._resume()
        while not leave.is_set():
            wake.clear()
            status = self._look()
            if status.state == "done":
                name = self._bringHome(status)
                if name is not None:
                    return name
            elif status.is_final:
                self._told.put(status)
                return None
            else:
                self._told.put(status)
            isNear = self._job.runs_here or status.state == "submitting"
            wake.wait(LOOK_HERE_EVERY_SECONDS if isNear else LOOK_EVERY_SECONDS)
        return None

    def _resume(self) -> None:
        from medmae.jobs.stopping import resume
        from medmae.jobs.targets import find_target

        target = find_target(self.target)  # as it is now: what kept the run from beginning may have been mended
        isSame = target is not None and target.kind == self._job.target.kind
        changes = {field.name: getattr(target, field.name) for field in fields(Target)} if isSame else {}
        try:
            self._job = resume(self._job, **changes)
        except BadInput:  # it is under way or done: somebody else was quicker, and following tells
            self._job = self._job.refreshed()
        self._isToResume = False

    def _look(self) -> following.Status:
        """How the run stands; where that cannot be found out now, as it was last seen."""
        try:
            return self._tellTarget() or following.follow(self._job)
        except (OSError, OperationFailed) as error:  # a full disk here or there, or its folder there is damaged
            said = (str(error).strip() or type(error).__name__).splitlines()[-1]
            return _unreachable(self._job, TargetProblem("odd answer", _(
                "What the run says cannot be taken in: {problem}").format(problem=said), _(
                "Make room on the disk, or look into the folder of the run there. The run goes on meanwhile.")))

    def _tellTarget(self) -> following.Status | None:
        """Tell the target to stop, where that is wanted; returns how it stands if it cannot be told now."""
        from medmae.jobs.stopping import stop

        wish = self._wanted
        if not wish:
            return None
        try:
            stop(self._job, hard=wish == "cancel")
        except TargetProblem as problem:
            return _unreachable(self._job, problem)
        if self._wanted == wish:
            self._wanted = ""
        return None

    def _bringHome(self, status: following.Status) -> str | None:
        """Fetch and install the model of a run that is done; None: not now, since the target does not answer."""
        from medmae.folder_lock import has_writer
        from medmae.jobs.fetching import fetch
        from medmae.jobs.submission import FOLDER

        self._told.put(replace(status, state="running", stage="fetching", step=None))
        python = chosenInterpreter()
        try:
            fetch(self._job, install=False, checker=(python.executable, python.environment()))
        except TargetProblem as problem:
            self._told.put(_unreachable(self._job, problem))
            return None
        except BadInput:
            if has_writer(self.run.path / FOLDER):  # another Slicer is fetching it
                return None
            raise
        name = takeModel(self.run)
        self._told.put(status)
        return name


def _unreachable(job: Job, problem: TargetProblem) -> following.Status:
    last = following.last_known(job)
    return replace(last, state="unreachable", last_state=last.state, eta_s=None, reason=problem.finding,
                   remedy=problem.remedy)
