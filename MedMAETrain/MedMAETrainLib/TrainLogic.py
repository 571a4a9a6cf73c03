"""Pretrain encoders and finetune models, here in a process that outlives Slicer, or on another computer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.HandOver import HandOver
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from medmae.files import write_json
from medmae.home import runs_folder
from medmae.run_folder import Kind, RunFolder
from MedMAETrainLib import RunQueue
from MedMAETrainLib.CaseExport import CasePair, collectLabels, exportDataset, guessModality
from MedMAETrainLib.LocalTrainingJob import LocalTrainingJob
from MedMAETrainLib.LoopLogic import LoopLogic
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectDataset import DATASET_FILE, SCORED, datasetOf
from MedMAETrainLib.ProjectImages import linkOrCopy
from MedMAETrainLib.ProjectLogic import noteRun, now
from MedMAETrainLib.RemoteTrainingJob import RemoteTrainingJob
from MedMAETrainLib.RunLogic import RunLogic
from MedMAETrainLib.RunPlan import DATA_FOLDER, FROM_SCRATCH, Report, RunPlan, WriteData, configOf
from MedMAETrainLib.RunRequest import RunRequest, writeRequest
from MedMAETrainLib.StartingPoint import StartingPoint, startingPoints
from MedMAETrainLib.StartLogic import StartLogic
from MedMAETrainLib.TrainingJob import TrainingJob

Cases = Sequence[CasePair] | Project
Images = Project | str | Path | Sequence[str | Path]


class TrainLogic(StartLogic, LoopLogic, RunLogic):
    """The computation of the MedMAETrain module; needs no widget.

    >>> job = logic.finetune([(volumeNode, segmentationNode), ...], encoder="gl-mae-brain", name="my hippocampus")
    >>> job.finished.connect(lambda job: print(job.result, job.error))
    """

    def __init__(self) -> None:
        super().__init__()
        self._handOvers: list[HandOver] = []

    def startingPoints(self, task: str = "segmentation", project: Project | None = None) -> list[StartingPoint]:
        """What training can start from: installed encoders first, then finetuned models, then runs whose models are
        not in the list (of a project, or all). Pretraining starts from scratch: there is nothing.

        :param task: "segmentation", "classification" or "pretraining".
        """
        return [] if task == "pretraining" else startingPoints(self.runs(project))

    def finetune(self, cases: Cases, encoder: str | Path = FROM_SCRATCH, name: str | None = None, *,
                 task: str = "segmentation", method: str | None = None, preset: str | None = None,
                 modality: str | None = None, steps: int | None = None, seed: int | None = None, device: str = "auto",
                 target: str | None = None, allowMissing: bool = False, settings: dict[str, Any] | None = None,
                 queue: bool = False, progressCallback: ProgressCallback | None = None,
                 waitForCompletion: bool = False) -> TrainingJob | str:
        """Train a model on the given cases, starting from an encoder.

        :param cases: a project, which then knows of the run and its model; or pairs (volumeNode, segmentationNode),
          whose segments are matched by name over all cases and resampled onto the voxels of their volume.
        :param encoder: name in the registry, model folder or run folder, of an encoder or of a model that has one;
          "none": from scratch, with `method` ("gl-mae": 3-D, "vis-mae": 2-D) and `preset` ("tiny", "small", "base";
          gl-mae has more, such as "tiny-hybrid", see medmae finetune --help).
        :param task: "segmentation", or of a project "classification" by the classes of its cases.
        :param name: of the finished model in the list; default: made from the label names.
        :param modality: DICOM code (CT, MR, PT, US, DX, CR); default: the encoder's, else guessed from the voxels.
        :param steps: optimiser steps; default: what the preset says.
        :param device: "auto", "cpu" or "cuda:0", of the computer that computes.
        :param target: train on this target of MedMAE ("gpu-box") instead of here; voxels, geometry, labels and
          settings are all that leaves. Its queue, where it has one, decides when.
        :param allowMissing: accept cases that lack some segment, or have it empty: there is none of it to see.
        :param settings: further keys of the finetuning configuration.
        :param queue: begin when the runs before it on this computer have ended.
        :param progressCallback: called with (fraction from 0 to 1, message) while cases are handed over and then
          while the model is trained.
        :param waitForCompletion: False: return a `TrainingJob` that follows the run. True: return the name of the
          installed model, with the application alive meanwhile. Closing Slicer never ends the run.
        :raises ValueError: cases cannot be used; one message lists all problems.
        :raises medmae.errors.BadInput: the encoder, a setting or the target cannot be used; nothing was started.
        """
        plan = self.planRun("finetune", cases, encoder, task=task, method=method, preset=preset, modality=modality,
                            steps=steps, seed=seed, device=device, allowMissing=allowMissing, settings=settings)
        return self._begin(plan, cases, str(encoder), name, target, queue, progressCallback, waitForCompletion)

    def pretrain(self, source: Images, name: str | None = None, *, encoder: str | Path = FROM_SCRATCH,
                 method: str | None = None, preset: str | None = None, modality: str | None = None,
                 steps: int | None = None, seed: int | None = None, device: str = "auto", target: str | None = None,
                 settings: dict[str, Any] | None = None, queue: bool = False,
                 progressCallback: ProgressCallback | None = None,
                 waitForCompletion: bool = False) -> TrainingJob | str:
        """Train an encoder on images without labels.

        :param source: a project, of which the images for training and the unlabelled ones are seen, never those for
          validation or test; or files, folders and patterns of images.
        :param name: of the finished encoder in the list; default: made from the name of the project or folder.
        :param encoder: only "none": pretraining starts from scratch.
        :param method, preset: see `finetune`; default: "gl-mae", "tiny".
        :param modality: DICOM code of all images; default: told image by image.
        :param settings: further keys of the pretraining configuration, and the method's own.

        The other parameters, and what is returned, are those of `finetune`.

        :raises ValueError: the project has no images.
        :raises medmae.errors.BadInput: there are no images, or a setting or the target cannot be used; nothing was
          started.
        """
        plan = self.planRun("pretrain", source, encoder, method=method, preset=preset, modality=modality, steps=steps,
                            seed=seed, device=device, settings=settings)
        return self._begin(plan, source, FROM_SCRATCH, name, target, queue, progressCallback, waitForCompletion)

    def planRun(self, kind: Kind, source: Any, encoder: str | Path = FROM_SCRATCH, *, task: str = "segmentation",
                method: str | None = None, preset: str | None = None, modality: str | None = None,
                steps: int | None = None, seed: int | None = None, device: str = "auto", allowMissing: bool = False,
                settings: dict[str, Any] | None = None) -> RunPlan:
        """What `finetune` and `pretrain` would start, for the same parameters; nothing is written.

        :raises ValueError, medmae.errors.BadInput: what can be told without voxels is not in order.
        """
        config = configOf(kind, {"method": method, "preset": preset, "steps": steps, "seed": seed, "device": device},
                          settings)
        uid = source.uid if isinstance(source, Project) else None
        if kind == "pretrain":
            if str(encoder) != FROM_SCRATCH:
                raise BadInput(_("Pretraining starts from scratch. To go on with a run that has not ended, resume it; "
                                 "to use its encoder, finetune from it."))
            names, write, images = _toPretrainOn(source, modality)
            if modality and not isinstance(source, Project):
                config["modality"] = modality
            plan = RunPlan("pretrain", "pretraining", config, FROM_SCRATCH, tuple(names), write, images, uid)
        else:
            path = _modelPath(encoder)
            modality = modality or _encoderModality(path)
            if isinstance(source, Project):
                names, write = _ofProject(source, task, modality, allowMissing)
            else:
                names, write = self._ofScene(source, task, modality, allowMissing)
            plan = RunPlan("finetune", task, config, path, tuple(names), write, project=uid, isOfScene=uid is None)
        plan.checkConfig()
        return plan

    def cancelHandOver(self) -> None:
        """End what `finetune` does before training starts; it then raises RunCancelled."""
        for handOver in self._handOvers:
            handOver.cancel()

    def _begin(self, plan: RunPlan, source: Any, encoder: str, name: str | None, target: str | None, queue: bool,
               progressCallback: ProgressCallback | None, waitForCompletion: bool) -> TrainingJob | str:
        report = progressCallback or (lambda _fraction, _message: None)
        where = None
        if target:
            from medmae.jobs.targets import get_target

            where = get_target(target)
        if self.engineCommand is None and (where is None or where.kind == "local"):
            Dependencies.ensureInstalled()
        request = RunRequest(_modelName(name, plan.names), plan.task, plan.project, now())

        def prepare(run: RunFolder) -> None:
            data = run.path / DATA_FOLDER
            if plan.isOfScene:
                plan.write(data, report)
            else:  # labels may have to be copied from another disk
                inBackground(lambda: plan.write(data))
            inBackground(lambda: plan.check(data))
            report(0.0, _("Starting"))  # whoever hears it may raise: nothing was noted yet
            writeRequest(run.path, request)
            if isinstance(source, Project):
                noteRun(source, run, plan.task, encoder)

        if where is None:
            job = self._startHere(plan, prepare, queue)
        else:
            job = _submitThere(plan, prepare, where, request.name)
        self._follow(job)
        job.progressed.connect(report)
        return job.wait() if waitForCompletion else job

    def _startHere(self, plan: RunPlan, prepare: Callable[[RunFolder], None], queue: bool) -> TrainingJob:
        run = _createRun(plan)
        try:
            prepare(run)
            job = LocalTrainingJob(run, command=self.engineCommand, listing=self._listing)
            if queue:
                RunQueue.enqueue(run)
                job.poll()  # starts where nothing is before it
            else:
                job.start()
        except BaseException:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        return job

    def _ofScene(self, cases: Sequence[CasePair], task: str, modality: str | None,
                 allowMissing: bool) -> tuple[list[str], WriteData]:
        if task != "segmentation":
            raise ValueError(_("Nodes of the scene have segmentations and no classes. For classification, add the "
                               "images to a project and give its cases their classes."))

        def write(folder: Path, report: Report) -> None:
            handOver = HandOver([node for case in cases for node in case])
            self._handOvers.append(handOver)
            try:
                handOver()
                exportDataset(cases, folder, modality or guessModality(cases[0][0]), allowMissing=allowMissing,
                              report=report, between=handOver)
            finally:
                self._handOvers.remove(handOver)

        return [label.name for label in collectLabels(cases, allowMissing)], write


def _submitThere(plan: RunPlan, prepare: Callable[[RunFolder], None], where: Any, name: str) -> TrainingJob:
    from medmae.jobs.job import mirror_of, new_id
    from medmae.jobs.submission import submit

    jobId = new_id(plan.kind)
    inputs = plan.inputs(mirror_of(jobId) / DATA_FOLDER)
    try:
        job = submit(where, plan.kind, plan.config, inputs, name=name, job_id=jobId, prepare=prepare)
    except OSError as error:
        raise _unwritable(error) from error
    return RemoteTrainingJob(job)


def _ofProject(project: Project, task: str, modality: str | None, allowMissing: bool) -> tuple[list[str], WriteData]:
    content = datasetOf(project, task, modality=modality, allowMissing=allowMissing, whole=True)
    names = [name for name, value in content["labels"].items() if value or task == "classification"]

    def write(folder: Path, _report: Report) -> None:
        for item in (item for key in SCORED for item in content.get(key, ()) if task == "segmentation"):
            # Saved segmentations take the place of old ones, which a run needs again when it is resumed.
            try:
                place = linkOrCopy(Path(item["label"]), folder / "labels" / f"{item['id']}.nrrd")
            except OSError as error:
                raise BadInput(_("The segmentation {file} of {case} cannot be taken ({reason}). Save it again, or "
                                 "remove the case.").format(file=item["label"], case=item["id"],
                                                     reason=error.strerror)) from error
            item["label"] = place.as_posix()
        write_json(folder / DATASET_FILE, content)

    return names, write


def _toPretrainOn(source: Images, modality: str | None) -> tuple[list[str], WriteData | None, tuple[str, ...]]:
    """What the images are called, what writes their data set, or where they are."""
    if isinstance(source, Project):
        content = datasetOf(source, "pretraining", modality=modality, whole=True)
        return [f"{source.name} encoder"], lambda folder, _report: write_json(folder / DATASET_FILE, content), ()
    from medmae.pretraining.sources import absolute_pattern

    paths = [str(path) for path in ([source] if isinstance(source, (str, Path)) else source)]
    if not paths:
        raise BadInput(_("There are no images to learn from. Name files or folders."))
    return [f"{Path(paths[0]).stem.strip('@*')} encoder"], None, tuple(absolute_pattern(path) for path in paths)


def _createRun(plan: RunPlan) -> RunFolder:
    path = runs_folder() / f"{plan.kind}-{datetime.now():%Y%m%d-%H%M%S-%f}"
    try:
        return RunFolder.create(path, plan.kind, plan.config, plan.inputs(path / DATA_FOLDER))
    except OSError as error:
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> BadInput:
    return BadInput(f"The folder of MedMAE's runs, {runs_folder()}, cannot be written to ({error.strerror}). Make "
                    "it writable, or set the environment variable MEDMAE_HOME to another folder.")


def _modelPath(encoder: str | Path) -> str:
    from medmae.models import resolve_model

    return FROM_SCRATCH if str(encoder) == FROM_SCRATCH else str(Path(resolve_model(encoder)).resolve())


def _encoderModality(encoder: str) -> str | None:
    from medmae.models import load_info

    return None if encoder == FROM_SCRATCH else load_info(Path(encoder)).modality or None


def _modelName(wanted: str | None, labels: Sequence[str]) -> str:
    """A name that the list of models accepts: the wanted one, or one made from the label names."""
    text = wanted or f"{' '.join(labels[:3])}{' and more' if len(labels) > 3 else ''}"
    return re.sub(r"[^\w .+-]+", "", text).strip(" .+-")[:90] or "model"
