"""The network of a finetuning run with the encoder's weights, and the task that trains it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from medmae.datasets import Corpus
from medmae.datasets.corpus_part import part_of_corpus
from medmae.datasets.preprocessing import Preprocessing
from medmae.errors import BadInput
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.planning import Plan
from medmae.models import load_state
from medmae.run_folder import RunFolder
from medmae.training.loop import LoopSettings

if TYPE_CHECKING:
    from torch import nn

    from medmae.finetuning.task import FinetuningTask

log = logging.getLogger(__name__)
TABLE = "encoder.position_table"


def build_task(run: RunFolder, plan: Plan, preprocessing: Preprocessing) -> tuple[FinetuningTask, dict[str, Any]]:
    """The task of the run's cases, with its network, and the network's architecture."""
    import torch

    from medmae.finetuning.classification import ClassificationTask
    from medmae.finetuning.segmentation import SegmentationTask

    torch.manual_seed(plan.config.seed)
    network, architecture = build_finetuning_network(plan, preprocessing.network_channels)
    inputs = run.spec["inputs"]
    validation = Corpus(inputs.get("validation_corpus") or run.path / "corpus-validation") if plan.validation else None
    cls = SegmentationTask if plan.dataset.task == "segmentation" else ClassificationTask
    shared = inputs.get("corpus")
    corpus = (part_of_corpus(Corpus(shared), (case.id for case in plan.training)) if shared
              else Corpus(run.path / "corpus-training"))
    task = cls(network, plan.config, corpus, validation, preprocessing.input_size, list(plan.dataset.labels))
    return task, architecture


def build_finetuning_network(plan: Plan, channels: int) -> tuple[nn.Module, dict[str, Any]]:
    """The task's network with the encoder's weights, or fresh ones, and its architecture.

    With an encoder, its own architecture says depths, widths and window; otherwise the preset does.

    Raises:
        BadInput: less than 95 % of the encoder's parameters fit and partial loading is not allowed, or the network does
            not have an option that was asked for.
    """
    from medmae.networks import build_network, transfer_encoder

    architecture = finetuning_architecture(plan, channels)
    network = build_network(architecture)
    if plan.encoder is not None:
        assert plan.encoder_info is not None
        state, source = load_state(plan.encoder), plan.encoder_info.architecture["arguments"]
        if architecture["arguments"].get("position_grid") and TABLE not in state:
            state[TABLE] = network.state_dict()[TABLE]  # what pretraining computed for this grid
        contexts = plan.encoder_info.context, plan.config.context or 0
        report = transfer_encoder(state, network, allow_partial=plan.config.allow_partial,
                                  slices=(2 * contexts[0] + 1, 2 * contexts[1] + 1),
                                  position_grid=source.get("position_grid"))
        log.info("encoder %s: %s; %s", plan.encoder_info.name, report.summary(), report.parts())
        for line in report.resizings:
            log.info("resized %s", line)
    return network, architecture


def finetuning_architecture(plan: Plan, channels: int) -> dict[str, Any]:
    """The architecture of the task's network, with the options that the configuration asks for.

    Raises:
        BadInput: the network does not have such an option.
    """
    from medmae.networks import architecture_following, architecture_for
    from medmae.networks.build import NETWORKS
    from medmae.networks.presets import baseline_architecture
    from medmae.networks.task_architecture import with_patch

    assert plan.config.method and plan.config.preset and plan.dataset.task
    wanted = plan.config.method, plan.config.preset, plan.dataset.task, channels, len(plan.dataset.labels)
    if plan.config.network != "method":
        dims = 3 if plan.config.method == "gl-mae" else 2
        return baseline_architecture(plan.config.network, plan.config.preset, dims, channels, len(plan.dataset.labels))
    architecture = (architecture_for(*wanted) if plan.like is None
                    else architecture_following(plan.like.architecture, *wanted))
    known = set(inspect.signature(NETWORKS[architecture["name"]]).parameters)
    if plan.like is not None and plan.like.architecture["name"] == architecture["name"]:
        for name in {"pool", "standardise", "weight_grid"} - set(plan.like.architecture["arguments"]):
            architecture["arguments"].pop(name, None)  # a classifier that is finetuned further pools as it did
    if plan.config.patch is not None and "patch" in known:
        architecture = with_patch(architecture, plan.config.patch)
    options = _network_options(plan, architecture["arguments"], known)
    for name, value in options.items():
        if name not in known:
            raise BadInput(f"The network {architecture['name']} has no option {name} (here {value}). Leave it out.")
    if "deep_supervision" in known:
        options.setdefault("deep_supervision", 0)  # a model that is finetuned further may have had it
    return {"name": architecture["name"], "arguments": architecture["arguments"] | options}


def _network_options(plan: Plan, arguments: Mapping[str, Any], known: Set[str]) -> dict[str, Any]:
    """The arguments of the network that are asked for; what is as usual is left out.

    Raises:
        BadInput: positions shall be resized, but the network, whose arguments are `known`, has no table of them.
    """
    from medmae.networks.presets import preset

    config = plan.config
    assert config.method and config.preset
    options: dict[str, Any] = {name: value for name, value in (
        ("pool", config.pool), ("head", config.head), ("deep_supervision", config.deep_supervision),
        ("patch", None if config.patch is None else list(config.patch))) if value}
    if config.standardise is not None:
        options["standardise"] = config.standardise
    followed = {} if plan.like is None else plan.like.architecture["arguments"]
    if (config.pool or arguments.get("pool")) == "weighted" and "weight_grid" not in followed:
        numbers: Any = preset(config.method, config.preset)
        options["weight_grid"] = _grid(config.input_size or numbers.input_size, arguments)
    if config.positions == "resized" and "position_grid" not in known:
        raise BadInput(f"positions=resized is for networks with a table of positions, but those of the preset "
                       f"{config.preset} are computed. Leave it out.")
    if config.positions == "resized" and arguments.get("position_grid") is None:
        numbers = preset(config.method, config.preset)
        views = {} if plan.like is None else plan.like.training.get("views", {})
        options["position_grid"] = _grid(views.get("global", numbers.global_size), arguments)
    return options


def _grid(size: Sequence[int], arguments: Mapping[str, Any]) -> list[int]:
    """Whole patches (k, j, i) in `size` voxels, at least one."""
    patch = arguments.get("patch", 2 ** len(arguments.get("stem_widths", ())))
    sides = [patch] * 3 if isinstance(patch, int) else patch
    return [max(1, extent // side) for extent, side in zip(size, sides, strict=True)]


def loop_settings(config: FinetuneConfig) -> LoopSettings:
    """What the training loop needs of a resolved configuration."""
    assert config.steps and config.batch_size and config.learning_rate  # filled in by resolve_finetune_config
    return LoopSettings(
        steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate, seed=config.seed,
        precision=config.precision,  # type: ignore[arg-type]
        warmup=config.warmup, schedule=config.schedule or "warmup_cosine",
        clip_norm=config.clip_norm, betas=(0.9, 0.999), checkpoint_every=config.checkpoint_every,
        device_batch_size=config.device_batch_size,
        validate_every=max(1, config.steps // config.validations) if config.validations else None)
