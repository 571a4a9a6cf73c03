"""What a finetuning run decides before it reads an image: the cases, the network, and what contradicts what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmae.datasets import Case, Dataset, draw_cases, load_dataset
from medmae.datasets.classes import check_learnable, is_multi_label
from medmae.datasets.splits import folds
from medmae.errors import BadInput
from medmae.finetuning.config import FinetuneConfig, default_flip_axes, resolve_finetune_config
from medmae.models import ModelInfo, load_info, resolve_model

log = logging.getLogger(__name__)
FROM_SCRATCH = "none"
DEFAULT_METHOD = {2: "vis-mae", 3: "gl-mae"}


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before training: data, network and preprocessing.

    `encoder` and `encoder_info`: the model whose weights are taken, or None. `like`: the model whose architecture and
    preprocessing are followed: the encoder, or for a from-scratch arm the encoder of the arm beside it, or None.
    `held_out`: of a fold of a cross-validation the cases that it does not train on.
    """

    dataset: Dataset
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    encoder: Path | None
    encoder_info: ModelInfo | None
    config: FinetuneConfig
    like: ModelInfo | None = None
    multi_label: bool = False
    held_out: tuple[Case, ...] = ()


def make_plan(config: FinetuneConfig, inputs: Mapping[str, Any]) -> Plan:
    """Choose cases and network.

    inputs: ``dataset``, ``subset``, ``encoder`` (a model, or "none") and, with "none", ``like``: a model whose network
    and preprocessing the fresh one shall have; ``validation``: False leaves the validation cases alone; ``corpus``: a
    ready corpus that holds the training cases, ``validation_corpus`` one of the validation cases; ``fold``: [number,
    of how many], to train on all but that part of the training cases.

    Raises:
        BadInput: no labelled cases, an encoder that does not fit, or contradicting options.
    """
    dataset = load_dataset(inputs["dataset"])
    if dataset.task is None:
        raise BadInput(f"The dataset {dataset.path} has no labels, so there is nothing to finetune for. "
                       "Add labels, or pretrain on it with 'medmae pretrain'.")
    training, held_out = _training_cases(dataset, inputs, config)
    validation = tuple(case for case in dataset.lists.get("validation", ()) if case.is_labelled)
    validation = validation if inputs.get("validation", True) else ()
    multi_label = is_multi_label(dataset, [case for cases in dataset.lists.values() for case in cases])
    if dataset.task == "classification":
        for warning in check_learnable(dataset, training, multi_label):
            log.warning("%s", warning)
    path, like = _models(inputs)
    method, preset = _method_and_preset(config, like, training[0])
    config = replace(config, method=method, preset=preset)
    if config.network != "method" and (path is not None or dataset.task != "segmentation"):
        raise BadInput(f"The baseline network={config.network} is trained from scratch for segmentation, but "
                       + (f"the encoder {inputs['encoder']} was given. Use --encoder none." if path is not None else
                          f"{dataset.path} is a {dataset.task} dataset. Leave it out."))
    _refuse_foreign_options(config, dataset.task)
    _refuse_what_is_missing(config, pretrained=path is not None, validation=bool(validation))
    config = _settled(config, method, preset, like, dataset, pretrained=path is not None)
    return Plan(dataset, training, validation, path, like if path is not None else None, config, like, multi_label,
                held_out)


def with_flips(plan: Plan, orientation: str) -> Plan:
    """`plan` with the axes of its flips, which are known once the orientation of the network's input is."""
    config, dataset = plan.config, plan.dataset
    if config.augmentation.flip_axes is not None:  # () means that none was wished
        return plan
    assert dataset.task is not None
    axes = default_flip_axes(dataset.task, dataset.foreground, 3 if config.method == "gl-mae" else 2, orientation)
    return replace(plan, config=replace(config, augmentation=replace(config.augmentation, flip_axes=axes)))


def _method_and_preset(config: FinetuneConfig, like: ModelInfo | None, case: Case) -> tuple[str, str]:
    if like is None:
        return config.method or _method_for(case), config.preset or "tiny"
    if config.method not in (None, like.method) or config.preset not in (None, like.preset):
        raise BadInput(f"The encoder {like.name} is {like.method} {like.preset}, but {config.method or like.method} "
                       f"{config.preset or like.preset} was asked for. Leave --method and --preset out.")
    return like.method, like.preset


def _settled(config: FinetuneConfig, method: str, preset: str, like: ModelInfo | None, dataset: Dataset, *,
             pretrained: bool) -> FinetuneConfig:
    """The configuration without gaps.

    Raises:
        BadInput: the input size or the neighbouring slices are not for a network of this many dimensions.
    """
    assert dataset.task is not None
    dims = 3 if method == "gl-mae" else 2
    config = replace(config, context=_context(config, like, dims))
    if config.input_size is not None and len(config.input_size) != dims:
        raise BadInput(f"The input size {list(config.input_size)} has {len(config.input_size)} numbers, but "
                       f"{method} needs {dims}. Give input_size="
                       f"{'[96,96,96]' if dims == 3 else '[224,224]'}, for example.")
    return resolve_finetune_config(config, method=method, preset=preset, task=dataset.task, pretrained=pretrained)


def _models(inputs: Mapping[str, Any]) -> tuple[Path | None, ModelInfo | None]:
    """The model whose weights are taken (None from scratch), and the one that is followed.

    Raises:
        BadInput: there is no such model, or it has no encoder of its own.
    """
    encoder = inputs.get("encoder")
    from_scratch = encoder in (None, FROM_SCRATCH)
    followed = inputs.get("like") if from_scratch else encoder
    if followed is None:
        return None, None
    folder = resolve_model(followed)
    like = load_info(folder)
    if like.architecture["name"] in ("plain_unet", "dyn_unet"):
        raise BadInput(f"The model {followed} is a baseline, which has no encoder to start from. Give a pretrained "
                       "encoder, or --encoder none.")
    if like.architecture["name"] == "ensemble":
        raise BadInput(f"The model {followed} is an ensemble of {like.architecture['arguments'].get('members')} "
                       "networks, each with an encoder of its own. Give one of them (RUN/folds/1/model of the run that "
                       "made it), or a pretrained encoder.")
    return None if from_scratch else folder, like


def _refuse_foreign_options(config: FinetuneConfig, task: str) -> None:
    """See that the options of single networks and tasks are for the network and task at hand.

    Raises:
        BadInput: one is not.
    """
    is_vit = config.method == "gl-mae" and config.network == "method"
    segments, classifies = is_vit and task == "segmentation", is_vit and task == "classification"
    foreign = (
        (f"deep_supervision={config.deep_supervision}", bool(config.deep_supervision) and not segments,
         "gl-mae segmentation"),
        (f"positions={config.positions}", config.positions != "computed" and not is_vit, "gl-mae"),
        (f"patch={list(config.patch or ())}", config.patch is not None and not is_vit, "gl-mae"),
        (f"pool={config.pool}", config.pool is not None and not classifies, "gl-mae classification"),
        (f"head={config.head}", config.head is not None and not classifies, "gl-mae classification"),
        (f"standardise={config.standardise}", config.standardise is not None and not classifies,
         "gl-mae classification"),
    )
    for option, is_foreign, owner in foreign:
        if is_foreign:
            network = "" if config.network == "method" else f" with network={config.network}"
            raise BadInput(f"{option} is an option of {owner}, but this is {config.method} {task}{network}. "
                           "Leave it out.")


def _refuse_what_is_missing(config: FinetuneConfig, *, pretrained: bool, validation: bool) -> None:
    if config.freeze_encoder and not pretrained:
        raise BadInput("freeze_encoder=true keeps a pretrained encoder as it is, but there is none: a random one would "
                       "never learn. Give --encoder MODEL, or leave it out.")
    if config.patience is not None and not validation:
        raise BadInput(f"patience={config.patience} stops training when the validation score no longer rises, but "
                       "there are no labelled validation cases here. Add a list 'validation' to the dataset file, or "
                       "leave patience out.")


def _context(config: FinetuneConfig, like: ModelInfo | None, dims: int) -> int:
    """Neighbouring slices on each side: as asked for, else those of the model that is finetuned further, else none.

    Raises:
        BadInput: they were asked for from a 3-D network.
    """
    if dims == 3 and config.context:
        raise BadInput(f"context={config.context} was asked for, but gl-mae sees whole volumes, so there are no "
                       "neighbouring slices to add. Leave it out, or use vis-mae.")
    return config.context if config.context is not None else like.context if like is not None else 0


def _training_cases(dataset: Dataset, inputs: Mapping[str, Any],
                    config: FinetuneConfig) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """The cases to train on, and those that the run's fold holds out.

    Raises:
        BadInput: there are none, or too few.
    """
    if inputs.get("subset") and config.cases:
        raise BadInput("Give either --subset or --cases, not both.")
    cases = dataset.subset(inputs["subset"]) if inputs.get("subset") else dataset.cases("training")
    cases = tuple(case for case in cases if case.is_labelled)
    if config.cases:
        if config.cases > len(cases):
            raise BadInput(f"{config.cases} training cases were asked for, but {dataset.path} has only {len(cases)}.")
        cases = (dataset.settled_draw(config.cases, config.seed)
                 or draw_cases(cases, config.cases, config.seed))
    if not cases:
        raise BadInput(f"The dataset {dataset.path} has no labelled training cases. Label some, or check the list.")
    if config.folds is not None:
        folds(cases, config.folds, config.seed)  # raises where they cannot be parted so
    if not inputs.get("fold"):
        return cases, ()
    number, count = inputs["fold"]
    return folds(cases, count, config.seed)[number - 1]


def _method_for(case: Case) -> str:
    from medmae.volumes import read_image

    return DEFAULT_METHOD[2 if read_image(case.images[0]).is_2d else 3]
