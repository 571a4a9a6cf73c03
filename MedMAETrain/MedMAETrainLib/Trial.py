"""A trial: a few real steps of exactly the run that would be started, to tell its time and memory before it is."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Background import BackgroundTask
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FollowedJob import FollowedJob, RunCancelled, RunFailed
from MedMAESegmentLib.RunJob import RunJob
from MedMAESegmentLib.Translation import tr as _

from medmae.files import read_json, write_json
from medmae.home import home
from medmae.inference.memory import available_bytes
from medmae.jobs.problems import TargetProblem
from medmae.run_folder import RunFolder
from MedMAETrainLib.ProjectDataset import DATASET_FILE
from MedMAETrainLib.RunPlan import DATA_FOLDER, RunPlan
from MedMAETrainLib.TrialMeter import TrialMeter, TrialResult
from MedMAETrainLib.TrialThere import TrialThere

MOST_IMAGES = 12  # of each list: preparing more of them takes longer and tells nothing more about a step
FORGOTTEN_AFTER_SECONDS = 86400.0  # what a crash has left
_LISTS = ("training", "validation", "unlabeled")
_log = logging.getLogger(__name__)


class Trial(FollowedJob):
    """Begins a run, measures some of its steps, ends it and removes it; `result` is a `TrialResult`.

    >>> trial = Trial(logic.planRun("finetune", project, steps=800))
    >>> trial.finished.connect(lambda trial: print(trial.result, trial.error))
    >>> trial.startFollowing()
    """

    def __init__(self, plan: RunPlan, target: str | None = None, engineCommand: Sequence[str] | None = None) -> None:
        """
        :param target: name of another computer; images travel there. None: this one.
        :param engineCommand: replaces ``python -m medmae.run``, for tests.
        :raises RuntimeError: what computing needs cannot be installed.
        """
        super().__init__()
        if target is None and engineCommand is None:
            Dependencies.ensureInstalled()
        self._plan, self._target, self._engineCommand = plan, target, engineCommand
        self._folder = home() / "trials" / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
        self._meter = TrialMeter(target or "", available_bytes() if target is None else None)
        self._run: RunJob | TrialThere | None = None
        self._preparing: BackgroundTask[float] = BackgroundTask(self._prepare)

    def poll(self) -> bool:
        """Look once how far it is."""
        if self._ended:
            return True
        if self._run is None and not self._preparing.isOver:
            return False
        try:
            if self._run is None:
                self._meter.scale = self._preparing.result()
                self._begin()
            self._look()
        except (OSError, ValueError, RuntimeError, TargetProblem) as error:
            self._fail(error)
        return self._ended

    def cancel(self) -> None:
        """End it; nothing was measured."""
        if not self._ended:
            self._fail(RunCancelled(_("Cancelled.")), "cancelled")

    def _prepare(self) -> float:
        """Write the data of the run, fewer where there are many; gives how many times as many there are in all."""
        _removeOld(self._folder.parent)
        data = self._folder / DATA_FOLDER
        data.mkdir(parents=True)
        self._plan.write(data)
        scale = _keepSome(data / DATASET_FILE) if (data / DATASET_FILE).is_file() else 1.0
        self._plan.check(data)
        return scale

    def _begin(self) -> None:
        inputs = self._plan.inputs(self._folder / DATA_FOLDER)
        if self._target is not None:
            self._run = TrialThere(self._target, self._plan.kind, self._plan.config, inputs, [self._folder])
        else:
            run = RunFolder.create(self._folder / "run", self._plan.kind, self._plan.config, inputs)
            process = ChildProcess(run.path, command=self._engineCommand)
            process.start()
            self._run = RunJob(run, process)
        self._run.recorded.connect(self._meter.add)
        self._run.progressed.connect(self._progress)

    def _look(self) -> None:
        assert self._run is not None
        hasEnded = self._run.poll()
        if hasEnded and self._run.error is not None:
            self._fail(self._run.error)
        elif self._meter.isEnough or hasEnded:
            result = self._meter.result()
            if result is None:
                self._fail(RunFailed(_("The trial ended before a step could be measured.")))
            else:
                self.result = result
                self._end("done")

    def _fail(self, error: Exception, state: str = "failed") -> None:
        self.error = error
        self._end(state)

    def _cleanUp(self) -> None:
        if self._run is not None:
            self._run.cancel()
        if not isinstance(self._run, TrialThere):  # there, its files are needed until it has been told to end
            BackgroundTask(self._remove)

    def _remove(self) -> None:
        self._preparing.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _keepSome(file: Path) -> float:
    """Keep a few cases of a data set, of classes some of each; returns how many times as many there were."""
    content = read_json(file, "data set")
    found = [len(content[key]) for key in _LISTS if key in content]
    kept = {key: _spread(content[key]) for key in _LISTS if key in content}
    write_json(file, {**content, **kept})
    return sum(found) / max(sum(map(len, kept.values())), 1)


def _spread(items: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if len(items) <= MOST_IMAGES:
        return items
    ordered = sorted(items, key=lambda item: json.dumps(item.get("label")))
    return [ordered[number * len(items) // MOST_IMAGES] for number in range(MOST_IMAGES)]


def _removeOld(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if time.time() - path.stat().st_mtime > FORGOTTEN_AFTER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


__all__ = ["Trial", "TrialResult"]
