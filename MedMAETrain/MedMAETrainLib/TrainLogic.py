"""Finetune a MedMAE encoder on annotated volumes of the scene, in a process that outlives Slicer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.ChildProcess import ChildProcess
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.HandOver import HandOver

from medmae.errors import BadInput
from medmae.files import write_json
from medmae.home import runs_folder
from medmae.run_folder import RunFolder
from MedMAETrainLib.CaseExport import CasePair, collectLabels, exportDataset, guessModality
from MedMAETrainLib.LabelExport import segmentNames
from MedMAETrainLib.LoopLogic import LoopLogic
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectDataset import DATASET_FILE, SCORED, datasetOf
from MedMAETrainLib.ProjectImages import linkOrCopy
from MedMAETrainLib.ProjectLogic import ProjectLogic, noteRun
from MedMAETrainLib.TrainingJob import TrainingJob, findJobs, writeRequest

DATA_FOLDER = "data"
Data = tuple[list[str], Callable[[Path], Any]]  # names of the labels, and what writes a data set into a folder


class TrainLogic(LoopLogic, ProjectLogic):
    """The computation of the MedMAETrain module; needs no widget.

    >>> job = logic.finetune([(volumeNode, segmentationNode), ...], encoder="gl-mae-brain", name="my hippocampus")
    >>> job.finished.connect(lambda job: print(job.result, job.error))
    """

    def __init__(self) -> None:
        super().__init__()
        self.engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here
        self.jobs: list[TrainingJob] = []
        self._handOvers: list[HandOver] = []

    def encoders(self) -> list[tuple[str, str]]:
        """The installed encoders: (name, name with what it is for)."""
        from medmae.models import list_models

        return [(name, f"{name} ({info.modality}, {info.spatial_dims}-D)")
                for name, info in list_models() if info.task == "encoder"]

    def segmentNames(self, segmentationNode: Any) -> list[str]:
        """The names of the segments, in order."""
        return segmentNames(segmentationNode)

    def finetune(self, cases: Sequence[CasePair] | Project, encoder: str | Path = "none", name: str | None = None, *,
                 task: str = "segmentation", method: str | None = None, preset: str | None = None,
                 modality: str | None = None, steps: int | None = None, seed: int | None = None, device: str = "auto",
                 allowMissing: bool = False, settings: dict[str, Any] | None = None,
                 progressCallback: ProgressCallback | None = None,
                 waitForCompletion: bool = False) -> TrainingJob | str:
        """Train a model on the given cases, starting from an encoder.

        :param cases: a project, which then knows of the run and its model; or pairs (volumeNode, segmentationNode),
          whose segments are matched by name over all cases and resampled onto the voxels of their volume.
        :param encoder: name in the registry, model folder or run folder; "none": from scratch, with `method`
          ("gl-mae": 3-D, "vis-mae": 2-D) and `preset` ("tiny", "small", "base"; gl-mae has more, such as "tiny-hybrid",
          see medmae finetune --help).
        :param task: "segmentation", or of a project "classification" by the classes of its cases.
        :param name: of the finished model in the list; default: made from the label names.
        :param modality: DICOM code (CT, MR, PT, US, DX, CR); default: the encoder's, else guessed from the voxels.
        :param steps: optimiser steps; default: what the preset says.
        :param allowMissing: accept cases that lack some segment, or have it empty: there is none of it to see.
        :param settings: further keys of the finetuning configuration.
        :param progressCallback: called with (fraction from 0 to 1, message) while cases are handed over and then
          while the model is trained.
        :param waitForCompletion: False: return a `TrainingJob` that follows the run. True: return the name of the
          installed model, with the application alive meanwhile. Closing Slicer never ends the run.
        :raises ValueError: cases cannot be used; one message lists all problems.
        :raises medmae.errors.BadInput: the encoder cannot be used.
        """
        from medmae.models import resolve_model

        report = progressCallback or (lambda _fraction, _message: None)
        encoderPath = "none" if str(encoder) == "none" else str(Path(resolve_model(encoder)).resolve())
        modality = modality or _encoderModality(encoderPath)
        # What needs no voxels is told before anything is written or installed.
        if isinstance(cases, Project):
            names, write = _ofProject(cases, task, modality, allowMissing)
        else:
            names, write = self._ofScene(cases, modality, allowMissing, report)
        if self.engineCommand is None:
            Dependencies.ensureInstalled()
        given = {"method": method, "preset": preset, "steps": steps, "seed": seed, "device": device}
        config = {**{key: value for key, value in given.items() if value is not None}, **(settings or {})}
        run = _createRun(config, encoderPath)
        try:
            write(run.path / DATA_FOLDER)
            writeRequest(run, _modelName(name, names))
            report(0.0, "Starting")
            process = ChildProcess(run.path, detached=True, command=self.engineCommand)
            process.start()
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        job = self._follow(TrainingJob(run, process))
        if isinstance(cases, Project):
            noteRun(cases, job, task, str(encoder))
        job.progressed.connect(report)
        return job.wait() if waitForCompletion else job

    def cancelHandOver(self) -> None:
        """End what `finetune` does before training starts; it then raises RunCancelled."""
        for handOver in self._handOvers:
            handOver.cancel()

    def findRunning(self) -> list[TrainingJob]:
        """Follow runs that an earlier Slicer has started; those that have ended tell it at once, and give their models.
        """
        known = {job.run.path for job in self.jobs}
        return [self._follow(job) for job in findJobs(runs_folder()) if job.run.path not in known]

    def _follow(self, job: TrainingJob) -> TrainingJob:
        self.jobs.append(job)
        job.finished.connect(self.jobs.remove)
        job.startFollowing()
        return job

    def _ofScene(self, cases: Sequence[CasePair], modality: str | None, allowMissing: bool,
                 report: ProgressCallback) -> Data:
        def write(folder: Path) -> None:
            handOver = HandOver([node for case in cases for node in case])
            self._handOvers.append(handOver)
            try:
                handOver()
                exportDataset(cases, folder, modality or guessModality(cases[0][0]), allowMissing=allowMissing,
                              report=report, between=handOver)
            finally:
                self._handOvers.remove(handOver)

        return [label.name for label in collectLabels(cases, allowMissing)], write


def _ofProject(project: Project, task: str, modality: str | None, allowMissing: bool) -> Data:
    content = datasetOf(project, task, modality=modality, allowMissing=allowMissing, whole=True)
    names = [name for name, value in content["labels"].items() if value or task == "classification"]

    def write(folder: Path) -> None:
        for item in (item for key in SCORED for item in content.get(key, ()) if task == "segmentation"):
            # Saved segmentations take the place of old ones, which a run needs again when it is resumed.
            item["label"] = linkOrCopy(Path(item["label"]), folder / "labels" / f"{item['id']}.nrrd").as_posix()
        write_json(folder / DATASET_FILE, content)

    return names, write


def _createRun(config: dict[str, Any], encoder: str) -> RunFolder:
    path = runs_folder() / f"finetune-{datetime.now():%Y%m%d-%H%M%S-%f}"
    try:
        return RunFolder.create(path, "finetune", config, {
            "dataset": str(path / DATA_FOLDER / DATASET_FILE), "encoder": encoder, "subset": None, "cases": None})
    except OSError as error:
        raise BadInput(f"The folder of MedMAE's runs, {runs_folder()}, cannot be written to ({error.strerror}). Make "
                       "it writable, or set the environment variable MEDMAE_HOME to another folder.") from error


def _encoderModality(encoder: str) -> str | None:
    from medmae.models import load_info

    return None if encoder == "none" else load_info(Path(encoder)).modality or None


def _modelName(wanted: str | None, labels: Sequence[str]) -> str:
    """A name that the list of models accepts: the wanted one, or one made from the label names."""
    text = wanted or f"{', '.join(labels[:3])}{' and more' if len(labels) > 3 else ''}"
    return re.sub(r"[^\w .+-]+", "", text).strip(" .+-")[:90] or "model"
