"""A finetuning run: cases, corpora, network with the encoder's weights, training, model on disk."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medmae import __version__
from medmae.config import from_json, to_json
from medmae.datasets import Case, Corpus, Dataset, DatasetSummary, draw_cases, load_dataset, validate
from medmae.datasets.classes import check_learnable, is_multi_label
from medmae.datasets.corpus_building import build_corpus
from medmae.datasets.corpus_part import part_of_corpus
from medmae.datasets.preprocessing import ORIENTATION, Preprocessing
from medmae.errors import BadInput
from medmae.files import read_json, write_json
from medmae.finetuning.config import FinetuneConfig, default_flip_axes, resolve_finetune_config
from medmae.models import ModelInfo, load_info, load_state, resolve_model, save_model
from medmae.models.labels import model_labels
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup
from medmae.training.loop import LoopSettings, refuse_impossible, train
from medmae.training.progress import stage_reporter

if TYPE_CHECKING:
    from torch import nn

    from medmae.finetuning.task import FinetuningTask
    from medmae.volumes import Intensity

log = logging.getLogger(__name__)
FROM_SCRATCH = "none"
# Of a result object: what is long, or says nothing about how good the model is.
_NOT_FOR_THE_MODEL = {"cases", "task", "classes", "multi_label", "positive", "per_class", "confusion", "roc",
                      "calibration"}
DEFAULT_METHOD = {2: "vis-mae", 3: "gl-mae"}


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before training: data, network and preprocessing.

    `encoder` and `encoder_info`: the model whose weights are taken, or None. `like`: the model whose architecture and
    preprocessing are followed: the encoder, or for a from-scratch arm the encoder of the arm beside it, or None.
    """

    dataset: Dataset
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    encoder: Path | None
    encoder_info: ModelInfo | None
    config: FinetuneConfig
    like: ModelInfo | None = None
    multi_label: bool = False


def execute(run: RunFolder) -> None:
    """Execute the finetuning run `run` (or its rest) and leave the model in ``run.model``."""
    spec = run.spec
    plan = make_plan(from_json(FinetuneConfig, spec["config"], "finetuning configuration"), spec["inputs"])
    group = ProcessGroup.join(plan.config.device)
    try:
        refuse_impossible(_loop_settings(plan.config), group)
        if group.is_main:
            _prepare(run, plan)
        group.barrier()
        preprocessing = from_json(Preprocessing, read_json(run.path / "preprocessing.json"), "preprocessing")
        task, architecture = _task(run, plan, preprocessing)
        log.info("finetuning %s (%s) for %s of %s on %d cases for %d steps", plan.config.method, plan.config.preset,
                 plan.dataset.task, ", ".join(plan.dataset.labels), len(plan.training), plan.config.steps)
        train(task, run, _loop_settings(plan.config), group)
        if group.is_main:
            task.finish(plan.config.steps or 0)
            write_json(run.path / "validation.json", task.last_validation)
            _save(run, plan, preprocessing, architecture, task)
    finally:
        group.leave()


def make_plan(config: FinetuneConfig, inputs: dict[str, Any]) -> Plan:
    """Choose cases and network.

    inputs: ``dataset``, ``subset``, ``encoder`` (a model, or "none") and, with "none", ``like``: a model whose network
    and preprocessing the fresh one shall have; ``validation``: False leaves the validation cases alone; ``corpus``: a
    ready corpus that holds the training cases.

    Raises:
        BadInput: no labelled cases, an encoder that does not fit, or contradicting options.
    """
    dataset = load_dataset(inputs["dataset"])
    if dataset.task is None:
        raise BadInput(f"The dataset {dataset.path} has no labels, so there is nothing to finetune for. "
                       "Add labels, or pretrain on it with 'medmae pretrain'.")
    training = _training_cases(dataset, inputs, config)
    validation = tuple(case for case in dataset.lists.get("validation", ()) if case.is_labelled)
    validation = validation if inputs.get("validation", True) else ()
    multi_label = is_multi_label(dataset, [case for cases in dataset.lists.values() for case in cases])
    if dataset.task == "classification":
        for warning in check_learnable(dataset, training, multi_label):
            log.warning("%s", warning)
    encoder = inputs.get("encoder")
    path, info, like = None, None, None
    from_scratch = encoder in (None, FROM_SCRATCH)
    followed = inputs.get("like") if from_scratch else encoder
    if followed is None:
        method, preset = config.method or _method_for(training[0]), config.preset or "tiny"
    else:
        like = load_info(resolve_model(followed))
        if like.architecture["name"] in ("plain_unet", "dyn_unet"):
            raise BadInput(f"The model {followed} is a baseline, which has no encoder to start from. Give a "
                           "pretrained encoder, or --encoder none.")
        if not from_scratch:
            path, info = resolve_model(followed), like
        method, preset = like.method, like.preset
        if config.method not in (None, method) or config.preset not in (None, preset):
            raise BadInput(f"The encoder {followed} is {method} {preset}, but {config.method or method} "
                           f"{config.preset or preset} was asked for. Leave --method and --preset out.")
    if config.network != "method" and (path is not None or dataset.task != "segmentation"):
        raise BadInput(f"The baseline network={config.network} is trained from scratch for segmentation, but "
                       + (f"the encoder {encoder} was given. Use --encoder none." if path is not None else
                          f"{dataset.path} is a {dataset.task} dataset. Leave it out."))
    dims = 3 if method == "gl-mae" else 2
    config = replace(config, context=_context(config, like, dims))
    if config.input_size is not None and len(config.input_size) != dims:
        raise BadInput(f"The input size {list(config.input_size)} has {len(config.input_size)} numbers, but {method} "
                       f"needs {dims}. Give input_size={'[96,96,96]' if dims == 3 else '[224,224]'}, for example.")
    if config.augmentation.flip_axes is None:  # () means that none was wished
        axes = default_flip_axes(dataset.task, dataset.foreground, dims)
        config = replace(config, augmentation=replace(config.augmentation, flip_axes=axes))
    config = resolve_finetune_config(config, method=method, preset=preset, task=dataset.task,
                                     pretrained=path is not None)
    return Plan(dataset, training, validation, path, info, config, like, multi_label)


def _context(config: FinetuneConfig, like: ModelInfo | None, dims: int) -> int:
    """Neighbouring slices on each side: as asked for, else those of the model that is finetuned further, else none.

    Raises:
        BadInput: they were asked for from a 3-D network.
    """
    if dims == 3 and config.context:
        raise BadInput(f"context={config.context} was asked for, but gl-mae sees whole volumes, so there are no "
                       "neighbouring slices to add. Leave it out, or use vis-mae.")
    return config.context if config.context is not None else like.context if like is not None else 0


def _training_cases(dataset: Dataset, inputs: dict[str, Any], config: FinetuneConfig) -> tuple[Case, ...]:
    if inputs.get("subset") and config.cases:
        raise BadInput("Give either --subset or --cases, not both.")
    cases = dataset.subset(inputs["subset"]) if inputs.get("subset") else dataset.cases("training")
    cases = tuple(case for case in cases if case.is_labelled)
    if config.cases:
        if config.cases > len(cases):
            raise BadInput(f"{config.cases} training cases were asked for, but {dataset.path} has only {len(cases)}.")
        cases = draw_cases(cases, config.cases, config.seed)
    if not cases:
        raise BadInput(f"The dataset {dataset.path} has no labelled training cases. Label some, or check the list.")
    return cases


def _method_for(case: Case) -> str:
    from medmae.volumes import read_image

    return DEFAULT_METHOD[2 if read_image(case.images[0]).is_2d else 3]


def _prepare(run: RunFolder, plan: Plan) -> None:
    """Validate all files, decide the preprocessing and write the corpora; what exists already is kept."""
    if (run.path / "preprocessing.json").is_file():
        return
    if plan.encoder is not None:
        load_state(plan.encoder)  # damaged weights shall show before the work on the images
    lists = {"training": plan.training} | ({"validation": plan.validation} if plan.validation else {})
    summary = validate(replace(plan.dataset, lists=lists), list(lists), on_progress=stage_reporter(run, "validate"))
    summary = summary.of(case.id for case in plan.training)  # nothing is fitted to validation cases
    preprocessing = finetuning_preprocessing(plan, summary)
    for name, cases in lists.items():
        build_corpus(run.path / f"corpus-{name}", plan.dataset, cases, preprocessing, with_labels=True,
                     on_progress=stage_reporter(run, f"corpus of {name} cases"), should_stop=lambda: run.stop_requested)
    settle(run, plan, summary, preprocessing)


def settle(run: RunFolder, plan: Plan, summary: DatasetSummary, preprocessing: Preprocessing) -> None:
    """Write what is decided before training; from then on the run never prepares again.

    `summary` is of the training cases alone.
    """
    write_json(run.path / "config.json", to_json(plan.config))
    write_json(run.path / "ranges.json", ranges_seen(summary.towards(preprocessing.orientation)))
    write_json(run.path / "preprocessing.json", to_json(preprocessing))


def finetuning_preprocessing(plan: Plan, summary: DatasetSummary) -> Preprocessing:
    """The encoder's axes and intensities (where the modality is the same), the dataset's median spacing.

    Classification in 3-D looks at whole volumes, so that its spacing is coarse enough for the median field of view to
    fit the network's input.
    """
    from medmae.networks.presets import preset
    from medmae.volumes import default_intensity

    config, dataset = plan.config, plan.dataset
    assert config.method and config.preset  # filled in by make_plan
    numbers = preset(config.method, config.preset)
    orientation = ORIENTATION[numbers.spatial_dims]
    summary = summary.towards(orientation)
    intensities = tuple(default_intensity(modality, target=config.method) for modality in dataset.modalities)
    if plan.like is not None:
        usual = _intensities_by_modality(plan.like)
        first = usual[plan.like.modality]  # imported weights expect their constants, whatever the modality
        intensities = tuple(usual.get(modality, replace(one, mean=first.mean, std=first.std))
                            for modality, one in zip(dataset.modalities, intensities, strict=True))
    size = tuple(config.input_size or (plan.like.input_size if plan.like is not None else numbers.input_size))
    spacing = config.spacing_mm
    if spacing is None and numbers.spatial_dims == 3:
        spacing = summary.median_spacing_mm
        if dataset.task == "classification":
            extent = np.median(np.array(summary.shapes) * np.array(summary.spacings_mm), axis=0)
            wide = np.maximum(spacing, extent / np.array(size))
            spacing = (float(wide[0]), float(wide[1]), float(wide[2]))
    channels = 1 if plan.like is None else plan.like.image_channels
    if len(intensities) > 1:
        channels = len(intensities)
    elif channels == 3 and summary.channels == 1:
        channels = 1  # a stem for colour is folded exactly: three equal channels would be three times the work
    if config.context and summary.is_2d:
        log.warning("context=%d gives pictures nothing: each is repeated in place of its neighbours", config.context)
    return Preprocessing(
        spatial_dims=numbers.spatial_dims,  # type: ignore[arg-type]
        orientation=orientation, spacing_mm=spacing,
        input_size=size, channels=channels, context=config.context or 0,
        intensity=intensities if len(set(intensities)) > 1 else intensities[:1],
    )


def _intensities_by_modality(info: ModelInfo) -> dict[str, Intensity]:
    """How a model normalises images of each modality that it knows."""
    intensities = Preprocessing.of(info).intensity
    found = {info.modality: intensities[0]}
    for number, channel in enumerate(info.channels[:info.image_channels]):
        found.setdefault(channel.get("modality", info.modality), intensities[min(number, len(intensities) - 1)])
    return found


def ranges_seen(summary: DatasetSummary) -> dict[str, Any]:
    """What the training data looked like, for the warning that an image is unlike it: least and greatest per axis.

    The axes are those of `summary`, which must be the same for all cases.
    """
    spacings, shapes = np.array(summary.spacings_mm), np.array(summary.shapes)
    return {"spacing_mm": [spacings.min(0).tolist(), spacings.max(0).tolist()],
            "shape": [shapes.min(0).tolist(), shapes.max(0).tolist()]}


def _task(run: RunFolder, plan: Plan, preprocessing: Preprocessing) -> tuple[FinetuningTask, dict[str, Any]]:
    import torch

    from medmae.finetuning.classification import ClassificationTask
    from medmae.finetuning.segmentation import SegmentationTask

    torch.manual_seed(plan.config.seed)
    network, architecture = build_finetuning_network(plan, preprocessing.network_channels)
    validation = Corpus(run.path / "corpus-validation") if plan.validation else None
    cls = SegmentationTask if plan.dataset.task == "segmentation" else ClassificationTask
    shared = run.spec["inputs"].get("corpus")
    corpus = (part_of_corpus(Corpus(shared), (case.id for case in plan.training)) if shared
              else Corpus(run.path / "corpus-training"))
    task = cls(network, plan.config, corpus, validation, preprocessing.input_size, list(plan.dataset.labels))
    return task, architecture


def build_finetuning_network(plan: Plan, channels: int) -> tuple[nn.Module, dict[str, Any]]:
    """The task's network with the encoder's weights, or fresh ones, and its architecture.

    With an encoder, its own architecture says depths, widths and window; otherwise the preset does.

    Raises:
        BadInput: less than 95 % of the encoder's parameters fit and partial loading is not allowed.
    """
    from medmae.networks import architecture_following, architecture_for, build_network, transfer_encoder
    from medmae.networks.presets import baseline_architecture

    assert plan.config.method and plan.config.preset and plan.dataset.task
    wanted = plan.config.method, plan.config.preset, plan.dataset.task, channels, len(plan.dataset.labels)
    if plan.config.network != "method":
        dims = 3 if plan.config.method == "gl-mae" else 2
        architecture = baseline_architecture(plan.config.network, plan.config.preset, dims, channels,
                                             len(plan.dataset.labels))
    else:
        architecture = (architecture_for(*wanted) if plan.like is None
                        else architecture_following(plan.like.architecture, *wanted))
    network = build_network(architecture)
    if plan.encoder is not None:
        contexts = plan.encoder_info.context if plan.encoder_info else 0, plan.config.context or 0
        report = transfer_encoder(load_state(plan.encoder), network, allow_partial=plan.config.allow_partial,
                                  slices=(2 * contexts[0] + 1, 2 * contexts[1] + 1))
        log.info("encoder %s: %s; %s", plan.encoder_info.name if plan.encoder_info else "", report.summary(),
                 report.parts())
    return network, architecture


def _loop_settings(config: FinetuneConfig) -> LoopSettings:
    assert config.steps and config.batch_size and config.learning_rate  # filled in by resolve_finetune_config
    return LoopSettings(
        steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate, seed=config.seed,
        precision=config.precision,  # type: ignore[arg-type]
        warmup=config.warmup, schedule=config.schedule or "warmup_cosine",
        clip_norm=config.clip_norm, betas=(0.9, 0.999), checkpoint_every=config.checkpoint_every,
        validate_every=max(1, config.steps // config.validations) if config.validations else None)


def _save(run: RunFolder, plan: Plan, preprocessing: Preprocessing, architecture: dict[str, Any],
          task: FinetuningTask) -> Path:
    dataset, config = plan.dataset, plan.config
    assert dataset.task and config.method and config.preset
    scores = {key: value for key, value in task.last_validation.items() if key not in _NOT_FOR_THE_MODEL}
    info = ModelInfo(
        name=run.path.resolve().name, task=dataset.task, method=config.method, preset=config.preset,
        architecture=architecture, channels=_channels(dataset, preprocessing),
        labels=model_labels(dataset.labels), modality=dataset.modalities[0], **preprocessing.model_fields(),
        training={"dataset": dataset.name, "cases": len(plan.training),
                  "subjects": len({case.subject for case in plan.training}), "steps": config.steps,
                  "batch_size": config.batch_size, "seed": config.seed,
                  "encoder": plan.encoder_info.name if plan.encoder_info else FROM_SCRATCH,
                  "ranges": read_json(run.path / "ranges.json")},
        scores={"validation": scores} if scores else {}, multi_label=plan.multi_label,
        slice_pooling=config.slice_pooling, calibration=_calibration(task),
        medmae=__version__, created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return save_model(run.model, info, task.module.average)


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
