"""Training one model on the cases of one plan."""

from __future__ import annotations

import logging
from collections.abc import Callable

from medmae.config import from_json
from medmae.datasets.preprocessing import Preprocessing
from medmae.files import read_json, write_json
from medmae.finetuning.building import build_task, loop_settings
from medmae.finetuning.planning import Plan, with_flips
from medmae.finetuning.samples import SegmentationSamples
from medmae.finetuning.saving import save_finetuned
from medmae.finetuning.segmentation import SegmentationTask
from medmae.finetuning.task import FinetuningTask
from medmae.models.labels import model_labels
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup
from medmae.training.loop import train

log = logging.getLogger(__name__)


def train_one_model(run: RunFolder, plan: Plan, group: ProcessGroup) -> None:
    """Train on the prepared cases of `plan` (or go on) and leave the model in ``run.model``."""
    preprocessing = from_json(Preprocessing, read_json(run.path / "preprocessing.json"), "preprocessing")
    plan = with_flips(plan, preprocessing.orientation)
    task, architecture = build_task(run, plan, preprocessing)
    log.info("finetuning %s (%s) for %s of %s on %d cases for %d steps", plan.config.method, plan.config.preset,
             plan.dataset.task, ", ".join(plan.dataset.labels), len(plan.training), plan.config.steps)
    steps = train(task, run, loop_settings(plan.config), group, _samples(task, plan, preprocessing))
    if group.is_main:
        task.finish()
        if task.module.best is not None and task.module.best.is_known:
            log.info("the weights of step %d become the model: their validation was the best",
                     int(task.module.best.step))
        write_json(run.path / "validation.json", task.last_validation)
        save_finetuned(run, plan, preprocessing, architecture, task, steps)


def _samples(task: FinetuningTask, plan: Plan, preprocessing: Preprocessing) -> Callable[[], bytes] | None:
    """What draws pictures of a segmentation while it trains; classes have no place in an image."""
    if not plan.config.preview or not isinstance(task, SegmentationTask):
        return None
    return SegmentationSamples(task, model_labels(plan.dataset.labels, plan.dataset.looks), preprocessing)
