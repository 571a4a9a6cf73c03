"""Predicting and ranking on this computer, in a child process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FollowedJob import duration
from MedMAESegmentLib.RunJob import RunJob
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import write_json
from medmae.run_folder import RunFolder
from MedMAETrainLib.PredictionWork import ID_PREFIX, LoopResult, PredictionWork
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectDataset import modalityOf
from MedMAETrainLib.ProjectFolder import ProjectFolder

OUT = "outputs"
SPLIT = "unlabeled"


class PredictionJob(RunJob):
    """Its `result` is a `LoopResult`. What is finished is in the project at once, and stays when the job is ended."""

    def __init__(self, folder: Path, process: ChildProcess, work: PredictionWork) -> None:
        """`folder` is temporary, holds the run folder of `process`, and goes at the end."""
        super().__init__(RunFolder.open(process.runFolder), process)
        self.work, self._folder = work, folder
        self._ending: tuple[str, dict[str, Any]] | None = None
        self._hasNews, self._told = False, ""
        self.recorded.connect(self._onRecord)

    def poll(self) -> bool:
        """Take in what is new; True once the run has ended and all of it is in the project."""
        if not self._ended and self._ending is None:
            super().poll()
        if self._ended:
            return True
        try:
            if self._hasNews or self._ending is not None:
                self.work.read(self.run.path / OUT)
                self._hasNews = False
            if self.work.poll() and self._ending is not None:
                super()._takeEnd(*self._ending)
        except (ValueError, BadInput, OSError) as error:
            if self._process is not None:
                self._process.killTree()
            self.error = error
            self._end("failed")
        return self._ended

    def cancel(self) -> None:
        """End the run; cases that are finished stay."""
        if not self._ended and self.work.project.isOpen:
            self.work.save()
        super().cancel()

    def _onRecord(self, record: dict[str, Any]) -> None:
        self._hasNews = self._hasNews or record.get("ended") == "done"
        if record.get("case"):
            self._told = caseText(record["case"], record["cases"], record.get("eta_s"))

    def _progress(self, fraction: float, message: str) -> None:
        super()._progress(fraction, self._told or message)

    def _takeEnd(self, name: str, state: dict[str, Any]) -> None:
        """The last results are yet to be taken. Some cases that failed do not make all of it a failure."""
        self.work.readFailures(self.run.path / "result.json")
        isPartly = name == "failed" and bool(self.work.failed) and len(self.work.failed) < len(self.work.cases)
        self._ending = ("done" if isPartly else name), state

    def _takeResult(self) -> LoopResult:
        return self.work.result

    def _cleanUp(self) -> None:
        if self._process is not None and not self._process.waitForExit(0.05):
            self._process.killTree()
        shutil.rmtree(self._folder, ignore_errors=True)


def caseText(number: int, count: int, secondsLeft: float | None) -> str:
    """How far it is: ``Case 3 of 10, about 20 s left``."""
    text = _("Case {number} of {count}").format(number=number, count=count)
    return text if secondsLeft is None else _("{progress}, about {time} left").format(
        progress=text, time=duration(secondsLeft))


def writeCases(file: Path, project: ProjectFolder, cases: Sequence[ProjectCase]) -> dict[str, str]:
    """Write the data set of a run that predicts and ranks `cases`; returns what names it among the run's inputs. Its
    ids are those of the cases with a prefix: see `ID_PREFIX`."""
    write_json(file, {"name": project.name, "channel_names": {"0": modalityOf(project)}, SPLIT: [
        {"id": ID_PREFIX + case.id, "image": str(project.file(case.image)), "subject": case.subject}
        for case in cases]})
    return {"dataset": str(file), "split": SPLIT}


def startHere(folder: Path, work: PredictionWork, config: dict[str, Any], modelFolder: Path,
              command: Sequence[str] | None) -> PredictionJob:
    """Start the run in a temporary folder, which goes at its end.

    :param command: stands in for ``python -m medmae.run`` in tests.
    """
    try:
        inputs = {"model": str(modelFolder), **writeCases(folder / "dataset.json", work.project, work.cases),
                  "out": str(folder / "run" / OUT), "resume": False}
        run = RunFolder.create(folder / "run", "rank", config, inputs)
        process = ChildProcess(run.path, command=command)
        job = PredictionJob(folder, process, work)
        process.start()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return job
