"""The finished model of a finetuning run, with what it was trained on and how well it did."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmae import __version__
from medmae.config import to_json
from medmae.datasets import Dataset
from medmae.datasets.preprocessing import Preprocessing
from medmae.files import read_json
from medmae.finetuning.planning import FROM_SCRATCH, Plan, with_flips
from medmae.finetuning.preview import preview_of
from medmae.models import ModelInfo, save_model
from medmae.models.labels import model_labels
from medmae.run_folder import RunFolder

if TYPE_CHECKING:
    from medmae.finetuning.task import FinetuningTask

# Of a result object: what is long, or says nothing about how good the model is.
_NOT_FOR_THE_MODEL = {"cases", "task", "classes", "multi_label", "positive", "per_class", "confusion", "roc",
                      "calibration"}


def save_finetuned(run: RunFolder, plan: Plan, preprocessing: Preprocessing, architecture: dict[str, Any],
                   task: FinetuningTask, steps: int) -> Path:
    """Write the model that `task` has trained for `steps` steps."""
    best = task.module.best
    early = {} if best is None else {"early_stopping": {**best.summary(), "stopped_at": steps}}
    info = describe_model(
        run, plan, preprocessing, architecture, training=early, calibration=_calibration(task),
        scores={"validation": short_scores(task.last_validation)} if task.last_validation else {})
    picture = preview_of(task, info.labels, preprocessing) if plan.config.preview else None
    return save_model(run.model, info, task.module.chosen, picture)


def describe_model(run: RunFolder, plan: Plan, preprocessing: Preprocessing, architecture: dict[str, Any], *,
                   training: Mapping[str, Any], scores: dict[str, Any], calibration: dict[str, Any]) -> ModelInfo:
    """What model.json says of a finetuned model; `training` is added to the summary of the training."""
    dataset, config = plan.dataset, plan.config
    assert dataset.task and config.method and config.preset
    return ModelInfo(
        name=run.path.resolve().name, task=dataset.task, method=config.method, preset=config.preset,
        architecture=architecture, channels=_channels(dataset, preprocessing),
        labels=model_labels(dataset.labels, dataset.looks), modality=dataset.modalities[0],
        **preprocessing.model_fields(),
        training={"dataset": dataset.name, "cases": len(plan.training),
                  "subjects": len({case.subject for case in plan.training}), "steps": config.steps,
                  "batch_size": config.batch_size, "seed": config.seed,
                  "encoder": plan.encoder_info.name if plan.encoder_info else FROM_SCRATCH,
                  "flip_axes": list(with_flips(plan, preprocessing.orientation).config.augmentation.flip_axes or ()),
                  "ranges": read_json(run.path / "ranges.json"), **training},
        scores=scores, multi_label=plan.multi_label, slice_pooling=config.slice_pooling, calibration=calibration,
        medmae=__version__, created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))


def short_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Of a result object what a model says of itself."""
    return {key: value for key, value in scores.items() if key not in _NOT_FOR_THE_MODEL}


def _calibration(task: FinetuningTask) -> dict[str, Any]:
    from medmae.finetuning.classification import ClassificationTask

    return to_json(task.calibration) if isinstance(task, ClassificationTask) else {}


def _channels(dataset: Dataset, preprocessing: Preprocessing) -> list[dict[str, str]]:
    """The channels of the network's input; those of neighbouring slices say how far away they lie."""
    names: Sequence[str] = dataset.channel_names or dataset.modalities
    offsets = range(-preprocessing.context, preprocessing.context + 1)
    return [{"name": names[min(index, len(names) - 1)] + (f" {offset:+d}" if offset else ""),
             "modality": dataset.modalities[min(index, len(names) - 1)]}
            for offset in offsets for index in range(preprocessing.channels)]
