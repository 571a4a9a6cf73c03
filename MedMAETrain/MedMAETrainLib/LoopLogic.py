"""The part of the logic that goes round: predict, choose the next case, correct it, learn from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from MedMAESegmentLib import Dependencies
from MedMAESegmentLib.Application import newTemporaryFolder
from MedMAESegmentLib.FollowedJob import ProgressCallback
from MedMAESegmentLib.Suitability import refuseManyChannels, usableModel
from MedMAESegmentLib.Translation import tr as _

from medmae.errors import BadInput
from MedMAETrainLib.LearningCurve import LearningCurve
from MedMAETrainLib.LearningPoints import LearningPoints
from MedMAETrainLib.PredictionElsewhereJob import PredictionElsewhereJob
from MedMAETrainLib.PredictionFile import mayPredict
from MedMAETrainLib.PredictionJob import PredictionJob, startHere
from MedMAETrainLib.PredictionWork import LoopResult, PredictionWork
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.Ranking import Ranking, candidates, predictedBy, rankingOf
from MedMAETrainLib.RankingFile import NextData, RankingData, readNext

STRATEGIES = ("entropy", "random")
LoopJob = PredictionJob | PredictionElsewhereJob


class LoopLogic:
    """Part of `TrainLogic`.

    >>> logic.predictAndRank(project)
    >>> volumeNode, segmentationNode = logic.openNext(project)
    >>> logic.markCorrected(project, logic.nextCase(project), segmentationNode, volumeNode)
    """

    engineCommand: Sequence[str] | None = None  # tests put a stand-in for python -m medmae.run here

    def __init__(self) -> None:
        super().__init__()
        self._loopJobs: dict[str, LoopJob] = {}  # by the uid of the project
        self._learningPoints = LearningPoints()

    def predict(self, project: Project, model: str | Path | None = None,
                cases: Iterable[str | ProjectCase] | None = None, *, device: str = "auto", target: str | None = None,
                progressCallback: ProgressCallback | None = None,
                waitForCompletion: bool = False) -> LoopJob | LoopResult:
        """Let a model draw on the cases that nobody has annotated; they become "predicted", each as soon as it is done.

        What a person has drawn is never replaced, and nothing is trained on predictions. Cases that this model has
        predicted already are left out, so that the same call goes on with what was ended.

        :param model: name in the list, model or run folder; default: the newest model of the project.
        :param cases: default: those for training and unlabelled ones.
        :param device: "auto", "cpu" or "cuda:0".
        :param target: compute on this target of MedMAE instead of here.
        :param progressCallback: called with (fraction from 0 to 1, message).
        :param waitForCompletion: True: return the `LoopResult`, with the application alive meanwhile; False: the job.
        :raises ValueError: there is nothing to predict, or the model does not fit the project; why, and what to do.
        :raises medmae.errors.BadInput: there is no such model.
        """
        return self._start(project, model, cases, None, True, device, target, progressCallback, waitForCompletion)

    def rank(self, project: Project, model: str | Path | None = None, strategy: str = "entropy", *, seed: int = 0,
             device: str = "auto", target: str | None = None, progressCallback: ProgressCallback | None = None,
             waitForCompletion: bool = False) -> LoopJob | LoopResult:
        """Find out which of the cases that nobody has annotated are the most useful to annotate; see `ranking`.

        :param strategy: "entropy": where the model is unsure (mean over mirrored images); "random": in random order,
          from `seed`.
        :param model, device, target, progressCallback, waitForCompletion: see `predict`.
        :raises ValueError, medmae.errors.BadInput: see `predict`.
        """
        return self._start(project, model, None, (strategy, seed), False, device, target, progressCallback,
                           waitForCompletion)

    def predictAndRank(self, project: Project, model: str | Path | None = None, strategy: str = "entropy", *,
                       seed: int = 0, device: str = "auto", target: str | None = None,
                       progressCallback: ProgressCallback | None = None,
                       waitForCompletion: bool = False) -> LoopJob | LoopResult:
        """Do what `predict` and `rank` do, looking at each image only once."""
        return self._start(project, model, None, (strategy, seed), True, device, target, progressCallback,
                           waitForCompletion)

    def loopJob(self, project: Project) -> LoopJob | None:
        """What predicts or ranks in a project at the moment."""
        return self._loopJobs.get(project.uid)

    def loopModels(self, project: Project) -> list[str]:
        """The models that can predict cases: those of the project, the newest first, then the others in the list."""
        from medmae.models import list_models

        usable = [name for name, info in list_models() if info.task == "segmentation"]
        own = [name for name in self._ownModels(project) if name in usable]
        return own + [name for name in usable if name not in own]

    def newestModel(self, project: Project) -> str | None:
        """The newest model of a project that segments and is in the list."""
        from medmae.models import list_models

        usable = {name for name, info in list_models() if info.task == "segmentation"}
        return next((name for name in self._ownModels(project) if name in usable), None)

    def whyNotFinetune(self, model: str) -> str:
        """Why training cannot begin with what a model knows; empty where it can: encoder, decoder and, for the same
        number of labels, head are taken over."""
        from medmae.models import load_info, resolve_model

        if load_info(resolve_model(model)).architecture["name"] != "ensemble":
            return ""
        return _("{model} is an ensemble of several models, each with an encoder of its own. Train from the encoder "
                 "that it was made from.").format(model=model)

    def ranking(self, project: Project) -> Ranking | None:
        """The order of the cases that nobody has annotated yet, and why it is out of date; None: there is none yet.

        :raises medmae.errors.BadInput: what the project remembers of it is damaged.
        """
        data = readNext(project.path)
        return rankingOf(project, data, self.newestModel(project))

    def nextCase(self, project: Project) -> ProjectCase | None:
        """The case that is the most useful to annotate: the first one in the order, without an order the first one that
        nobody has annotated. None: all are annotated.

        :raises medmae.errors.BadInput: see `ranking`.
        """
        ranking = self.ranking(project)
        if ranking is not None and ranking.cases:
            return ranking.cases[0].case
        return next(iter(candidates(project)), None)

    def openNext(self, project: Project) -> tuple[Any, Any]:
        """Bring the most useful case into the scene: its volume node and a segmentation node with the prediction.

        :raises ValueError: all cases are annotated, or its files cannot be loaded.
        """
        case = self.nextCase(project)
        if case is None:
            raise ValueError(nothingLeft())
        return project.openCase(case)

    def markCorrected(self, project: Project, case: str | ProjectCase, segmentationNode: Any, volumeNode: Any = None, *,
                      mapping: Mapping[str, str | None] | None = None,
                      allowMissing: bool | None = None) -> ProjectCase:
        """Save a prediction that a person has corrected ("corrected"), or what was drawn where there was none
        ("annotated"); from now on it is trained on.

        :param mapping, allowMissing: see `Project.saveCase`.
        :raises ValueError: it cannot be saved; or labels are missing, which are to be drawn, or accepted to be missing.
        """
        saved = project.saveCase(segmentationNode, volumeNode, case=case, mapping=mapping,
                                 allowMissing=allowMissing)
        if not saved.isAnnotated:
            raise ValueError(_("The segmentation of {case} is saved, but not complete yet: {notes} Draw what "
                               "is missing, or say that there is none of it: Change > Nothing more to draw.").format(
                case=saved.id, notes=" ".join(saved.notes)))
        return saved

    def learningCurve(self, project: Project) -> LearningCurve:
        """How good the models of a project are by the number of cases they have learned from, and whether annotating
        more is likely to help."""
        return self._learningPoints.read(project)

    def _ownModels(self, project: Project) -> list[str]:
        started = {run.id: run.started for run in project.runs}
        return [model.name for model in sorted(project.models, key=lambda model: started.get(model.run, ""),
                                               reverse=True)]

    def _start(self, project: Project, model: str | Path | None, cases: Iterable[str | ProjectCase] | None,
               how: tuple[str, int] | None, labels: bool, device: str, target: str | None,
               progressCallback: ProgressCallback | None, waitForCompletion: bool) -> LoopJob | LoopResult:
        """Begin to predict (`labels`) and to rank (`how`: strategy and seed)."""
        if how is not None and how[0] not in STRATEGIES:
            raise ValueError(_("The strategy must be one of {strategies}.").format(strategies=", ".join(STRATEGIES)))
        if self.loopJob(project) is not None:
            raise ValueError(_("Cases of this project are being predicted or ranked already. Wait for that, or cancel "
                               "it."))
        name = model if model is not None else self.newestModel(project)
        if name is None:
            raise ValueError(_("The project has no model that segments yet. Annotate some cases and train one, or "
                               "choose a model from the list."))
        folder, info = usableModel(name, "segmentation", None)
        refuseManyChannels(info)
        ranking = None if how is None else RankingData(str(name), info.weights_sha256, *how, created="")
        todo = _todo(project, cases, ranking, labels, info.weights_sha256)
        work = PredictionWork(project, str(name), info, todo, ranking=ranking, labels=labels)
        config = {"strategy": how[0] if how else "random", "seed": how[1] if how else 0, "labels": labels,
                  "format": "nrrd", "device": device}
        job = self._launch(work, config, folder, target)
        self._loopJobs[project.uid] = job
        job.finished.connect(lambda _job: self._loopJobs.pop(project.uid, None))
        job.startFollowing()
        if progressCallback is not None:
            job.progressed.connect(progressCallback)
        return job.wait() if waitForCompletion else job

    def _launch(self, work: PredictionWork, config: dict[str, Any], modelFolder: Path, target: str | None) -> LoopJob:
        if target is not None:
            from medmae.jobs.targets import get_target

            get_target(target)  # an unknown one is told before anything begins
            return PredictionElsewhereJob(target, config, modelFolder, work)
        if self.engineCommand is None:
            Dependencies.ensureInstalled()
        return startHere(newTemporaryFolder(), work, config, modelFolder, self.engineCommand)


def nothingLeft() -> str:
    """What is told where nothing is left to annotate."""
    return _("Every case for training is annotated. Add images to the project to go on.")


def _todo(project: Project, cases: Iterable[str | ProjectCase] | None, ranking: RankingData | None, labels: bool,
          weights: str) -> list[ProjectCase]:
    """The cases that have no prediction by this model, or no score in the order.

    Raises:
        ValueError: there is none.
    """
    given = candidates(project) if cases is None else [project.case(case) for case in cases]
    if not given:
        raise ValueError(nothingLeft() if project.cases else _("The project has no cases. Add images first."))
    data = _known(project)
    predicted = predictedBy(project, data, weights)
    before = data.ranking if ranking is not None and data.ranking is not None and data.ranking.isLike(ranking) else None
    scored = {one.case for one in before.scores} if before is not None else set()
    todo = [case for case in given if (labels and mayPredict(case) and case.id not in predicted)
            or (ranking is not None and case.id not in scored)]
    if not todo:
        raise ValueError(_("Nothing is left to do: this model has already looked at every case that is not annotated, "
                           "or a person has drawn on it."))
    return todo


def _known(project: Project) -> NextData:
    """What the project remembers; where that is damaged, everything is computed anew."""
    try:
        return readNext(project.path)
    except BadInput:
        return NextData()
