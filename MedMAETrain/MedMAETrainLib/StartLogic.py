"""The part of the logic that helps to choose: what suits the images and the computer, and what a run will take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedMAESegmentLib.Background import inBackground
from MedMAESegmentLib.FollowedJob import ProgressCallback

from medmae.jobs.targets import get_target
from MedMAETrainLib.Computer import computerOf, thisComputer
from MedMAETrainLib.Fingerprint import readFingerprint
from MedMAETrainLib.Project import Project
from MedMAETrainLib.ProjectCase import ProjectCase
from MedMAETrainLib.ProjectDataset import modalityOf
from MedMAETrainLib.Recommendation import Network, Purpose, Setting, recommendNetwork, recommendSettings
from MedMAETrainLib.RunPlan import FROM_SCRATCH
from MedMAETrainLib.TrainRequest import PRETRAINING
from MedMAETrainLib.Trial import Trial
from MedMAETrainLib.TrialMeter import TrialResult

if TYPE_CHECKING:
    from medmae.run_folder import Kind


@dataclass(frozen=True)
class Recommended:
    """What suits a run.

    network - Method and preset from scratch; of a starting point its own.
    settings - Those that are worth a look, each with its reason.
    """

    network: Network
    settings: tuple[Setting, ...]


class StartLogic:
    """Part of `TrainLogic`.

    >>> for setting in logic.recommend(project).settings:
    ...     print(setting.name, setting.shown, setting.reason)
    """

    def recommend(self, project: Project, task: str = "segmentation", *, encoder: str | Path = FROM_SCRATCH,
                  method: str | None = None, preset: str | None = None, device: str = "auto",
                  target: str | None = None) -> Recommended:
        """What suits the images of a project and the computer. Reads headers in a thread; the application lives on.

        :param task: "segmentation", "classification" or "pretraining".
        :param encoder, method, preset, device, target: as for `finetune`, as far as they are decided already.
        :raises medmae.errors.BadInput: there is no such encoder or target.
        """
        where = get_target(target) if target else None
        fingerprint, computer = inBackground(
            lambda: (readFingerprint(project), thisComputer(device) if where is None else computerOf(where)))
        cases = casesFor(project, task)
        network = recommendNetwork(task, fingerprint.of(cases), len(cases), computer)
        inputSize = None
        if str(encoder) != FROM_SCRATCH:
            from medmae.models import load_info, resolve_model

            info = load_info(resolve_model(encoder))
            network, inputSize = Network(info.method, info.preset, ""), tuple(info.input_size)
        elif method or preset:
            network = Network(method or network.method, preset or ("tiny" if method else network.preset), "")
        purpose = Purpose(task, network.method, network.preset, modalityOf(project), inputSize, inputSize is not None)
        return Recommended(network, tuple(recommendSettings(purpose, fingerprint.of(cases), computer)))

    def measure(self, source: Any, encoder: str | Path = FROM_SCRATCH, *, kind: Kind = "finetune",
                target: str | None = None, progressCallback: ProgressCallback | None = None,
                waitForCompletion: bool = False, **choices: Any) -> Trial | TrialResult:
        """Compute a few real steps of exactly the run that `finetune` or `pretrain` would start, and remove them.

        :param source: cases, a project or images, as for these.
        :param kind: "finetune" or "pretrain".
        :param target: measure on this target of MedMAE; the images travel there.
        :param waitForCompletion: True: return the `TrialResult`; False: the `Trial`, a job.
        :param choices: the others of `finetune` and `pretrain`, such as method, preset, steps, device, settings.
        :raises ValueError, medmae.errors.BadInput: see `finetune`.
        """
        if target:
            get_target(target)  # an unknown one is told before anything begins
        plan = self.planRun(kind, source, encoder, **choices)  # type: ignore[attr-defined] - of TrainLogic
        trial = Trial(plan, target, self.engineCommand if target is None else None)  # type: ignore[attr-defined]
        if progressCallback is not None:
            trial.progressed.connect(progressCallback)
        trial.startFollowing()
        return trial.wait() if waitForCompletion else trial


def casesFor(project: Project, task: str) -> list[ProjectCase]:
    """The cases that a run of a task reads."""
    if task == PRETRAINING:
        return [case for case in project.cases if case.role in ("training", "unlabelled")]
    return [case for case in project.cases if case.role in ("training", "validation")
            and (case.isAnnotated if task == "segmentation" else case.className is not None)]
