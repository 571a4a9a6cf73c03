"""A pretraining run: corpus, network, training, model on disk."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medmae import __version__
from medmae.config import from_json, to_json
from medmae.datasets import Corpus, load_dataset
from medmae.datasets.labels import dicom_code
from medmae.datasets.ordered_pool import usable_cores
from medmae.datasets.preprocessing import ORIENTATION, Preprocessing
from medmae.errors import BadInput, Stopped
from medmae.files import atomic_path, read_json, write_json
from medmae.models import ModelInfo, save_model
from medmae.networks.presets import preset as network_preset
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.image_preparation import Recipe
from medmae.pretraining.method import PretrainingMethod, Reconstructions
from medmae.pretraining.network_grid import in_orientation, is_thin, network_orientation
from medmae.pretraining.preparation import Preparation, look_at_sources
from medmae.pretraining.registry import method_class
from medmae.pretraining.samples import reconstruction_png
from medmae.pretraining.sources import Source, pretraining_cases, sources_of_cases, sources_of_images
from medmae.run_folder import RunFolder
from medmae.training.balanced_order import BalancedOrder
from medmae.training.distributed import joined
from medmae.training.loop import LoopSettings, refuse_impossible, train

log = logging.getLogger(__name__)
EXAMPLES = 6
WAIT_SECONDS = 0.5
PREPROCESSING_FILE = "preprocessing.json"
PREPARATION_FILE = "preparation.json"


def execute(run: RunFolder) -> None:
    """Execute the pretraining run `run` (or its rest) and leave the encoder in ``run.model``."""
    spec = run.spec
    config = resolve_pretrain_config(from_json(PretrainConfig, spec["config"], "pretraining configuration"))
    with joined(config.device) as group:
        refuse_impossible(_loop_settings(config), group)
        if group.is_main:
            prepare_corpus(run, config, spec["inputs"])
            write_json(run.path / "config.json", to_json(config))
        else:
            _wait_for(_corpus_folder(run, spec["inputs"]) / PREPROCESSING_FILE, run)
        group.barrier()
        corpus = Corpus(_corpus_folder(run, spec["inputs"]))
        method = _method(config, corpus)
        method.order = _balanced_order(config, method, corpus)
        log.info("pretraining %s (%s) on %d items of %d images for %d steps", config.method, config.preset,
                 method.number_of_items, len(corpus), config.steps)
        for record in run.progress() if group.is_main else ():
            method.watch(record)  # of earlier attempts
        train(method, run, _loop_settings(config), group,
              partial(reconstruction_png, method, _preprocessing(corpus).orientation))
        if group.is_main:
            summary = method.training_summary(run.progress())
            run.write_state(**summary)
            examples = method.reconstruct(min(EXAMPLES, method.number_of_items))
            _save_examples(run.path / "reconstructions.npz", examples)
            save_encoder(run, config, method, corpus, summary)


def _wait_for(file: Path, run: RunFolder) -> None:
    """Preparing millions of images takes longer than processes may wait for each other at a barrier.

    Raises:
        Stopped: the main process, which prepares them, has ended.
    """
    while not file.is_file():
        if run.state()["state"] not in ("running", "stopping"):
            raise Stopped("The main process ended before the images were prepared; its log says why.")
        time.sleep(WAIT_SECONDS)


def _method(config: PretrainConfig, corpus: Corpus) -> PretrainingMethod:
    import torch

    cls = method_class(config.method)
    torch.manual_seed(config.seed)
    channels = int(corpus.items.shapes[0, 0])
    settings: Any = from_json(cls.Settings, config.settings, f"settings of {config.method}")
    return cls(config.preset, channels, corpus, settings, config.seed, config.weight_decay)


def _balanced_order(config: PretrainConfig, method: PretrainingMethod, corpus: Corpus) -> BalancedOrder | None:
    """The order that draws the modalities of the corpus as evenly as `config.balance` says; None for the plain one."""
    if not config.balance:
        return None
    groups = corpus.items.modality_numbers
    if len(groups) != method.number_of_items:  # a method of slices
        groups = np.repeat(groups, corpus.items.shapes[:, 1])
    order = BalancedOrder(groups, float(config.balance), config.seed)
    shares = zip(corpus.items.modality_codes, order.quotas.tolist(), strict=True)
    log.info("draws in an epoch of %d: %s", order.items, ", ".join(f"{code} {quota}" for code, quota in shares))
    return order


def _loop_settings(config: PretrainConfig) -> LoopSettings:
    # filled in by resolve_pretrain_config
    assert config.steps and config.batch_size and config.learning_rate and config.precision
    assert config.warmup is not None
    return LoopSettings(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate,
                        seed=config.seed, precision=config.precision,
                        warmup=config.warmup, clip_norm=config.clip_norm, checkpoint_every=config.checkpoint_every,
                        device_batch_size=config.device_batch_size)


def _corpus_folder(run: RunFolder, inputs: dict[str, Any]) -> Path:
    return Path(inputs["corpus"]) if inputs.get("corpus") else run.path / "corpus"


def prepare_corpus(run: RunFolder, config: PretrainConfig, inputs: dict[str, Any]) -> Corpus:
    """The corpus that the inputs describe: a ready one, or one made in the run folder (once) from a dataset or images.

    Raises:
        BadInput: no inputs, or not one of the images can be used; those that cannot are listed in skipped.csv.
        Stopped: a stop was asked for; what is prepared stays.
    """
    folder = _corpus_folder(run, inputs)
    if inputs.get("corpus"):
        return Corpus(folder)
    if (folder / "corpus.json").is_file() and (folder / PREPROCESSING_FILE).is_file():
        return Corpus(folder)
    sources, declared = _sources(inputs, config)
    workers = usable_cores() if config.workers is None else config.workers
    sources, grid = _settled_grid(folder, config, sources, workers, run)
    recipe = Recipe(config.method, pretraining_preprocessing(config, declared, grid), _stated_modality(config),
                    declared, config.min_foreground, config.frames)
    corpus, counts = Preparation(folder, sources, recipe, workers, run).execute()
    modalities = corpus.items.count_modalities()
    write_json(folder / PREPARATION_FILE, dataclasses.asdict(counts) | {"modalities": modalities})
    usual = declared if len(declared) > 1 else (next(iter(modalities)),)
    write_json(folder / PREPROCESSING_FILE, to_json(pretraining_preprocessing(config, usual, grid)))
    return corpus


def _sources(inputs: dict[str, Any], config: PretrainConfig) -> tuple[Sequence[Source], tuple[str, ...]]:
    """The images to pretrain on, and what modalities a dataset file declares for their channels (() without one)."""
    if inputs.get("dataset"):
        dataset = load_dataset(inputs["dataset"])
        cases = pretraining_cases(dataset, inputs.get("split"))
        declared = (_stated_modality(config),) * len(dataset.modalities) if config.modality else dataset.modalities
        return sources_of_cases(cases), declared
    if inputs.get("images"):
        return sources_of_images(inputs["images"]), ()
    raise BadInput("There is nothing to pretrain on. Give --dataset, --images or a prepared corpus.")


def _stated_modality(config: PretrainConfig) -> str:
    return dicom_code(config.modality or "")


@dataclass(frozen=True)
class _Grid:
    """How the corpus stores volumes: its orientation, and its spacing (k, j, i), None for each volume's own."""

    spacing_mm: tuple[float, float, float] | None
    orientation: str


def _settled_grid(folder: Path, config: PretrainConfig, sources: Sequence[Source], workers: int,
                  run: RunFolder) -> tuple[Sequence[Source], _Grid]:
    """The sources, looked into, and the grid with which the corpus in `folder` was begun, else one for these sources.

    A new one is noted for a resume.
    """
    numbers = network_preset(config.method, config.preset)
    needs_grids = numbers.spatial_dims == 3 and (config.spacing_mm is None or is_thin(numbers))
    sources, grids = look_at_sources(sources, ORIENTATION[3] if needs_grids else "", workers, run)
    file = folder / "spacing.json"
    if file.is_file():
        noted = {"orientation": ORIENTATION[numbers.spatial_dims]} | read_json(file, "spacing of the corpus")
        return sources, from_json(_Grid, noted, f"spacing of the corpus in {file}")
    orientation = network_orientation(numbers, grids.shapes, grids.spacings_mm)
    if config.spacing_mm == "native" or numbers.spatial_dims == 2 and config.spacing_mm is None:
        grid = _Grid(None, orientation)
    elif config.spacing_mm is None:
        median = grids.median_spacing_mm
        grid = _Grid(median and in_orientation(median, orientation), orientation)
    else:
        grid = _Grid(config.spacing_mm, orientation)
    write_json(file, to_json(grid))
    return sources, grid


def pretraining_preprocessing(config: PretrainConfig, modalities: Sequence[str], grid: _Grid) -> Preprocessing:
    """The preprocessing of a pretraining corpus: the method's dimensions and window, the modalities' intensities."""
    from medmae.volumes import default_intensity

    cls = method_class(config.method)
    intensities = tuple(default_intensity(modality, target=config.method) for modality in modalities or ("OT",))  # type: ignore[arg-type]
    return Preprocessing(
        spatial_dims=cls.spatial_dims,  # type: ignore[arg-type]
        orientation=grid.orientation,
        spacing_mm=grid.spacing_mm,
        input_size=tuple(network_preset(config.method, config.preset).input_size),
        intensity=intensities if len(set(intensities)) > 1 else intensities[:1],
        channels=config.channels or (len(intensities) if len(intensities) > 1 else 1),
    )


def save_encoder(run: RunFolder, config: PretrainConfig, method: PretrainingMethod, corpus: Corpus,
                 summary: Mapping[str, Any]) -> Path:
    """Write the trained encoder, with decoder and mask token, as the run's model.

    `summary`: what the method says of its training.
    """
    preprocessing = _preprocessing(corpus)
    preprocessing = dataclasses.replace(preprocessing,
                                        spacing_mm=method.network_spacing_mm or preprocessing.spacing_mm)
    modalities = corpus.items.count_modalities()
    modality = next(iter(modalities))
    info = ModelInfo(
        name=run.path.resolve().name, task="encoder", method=config.method, preset=config.preset,
        architecture=method.architecture,
        channels=[{"name": f"{modality} {index}" if method.channels > 1 else modality, "modality": modality}
                  for index in range(method.channels)],
        labels=[], modality=modality, **preprocessing.model_fields(),
        training={"images": len(corpus), "steps": config.steps, "batch_size": config.batch_size, "seed": config.seed,
                  "subjects": corpus.items.count_subjects(), "items": method.number_of_items,
                  "modalities": modalities, "balance": float(config.balance), **summary},
        medmae=__version__, created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return save_model(run.model, info, method.network)


def _preprocessing(corpus: Corpus) -> Preprocessing:
    return from_json(Preprocessing, read_json(corpus.folder / PREPROCESSING_FILE), "corpus preprocessing")


def _save_examples(path: Path, examples: Reconstructions) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, images=examples.images, masked=examples.masked,
                            reconstructions=examples.reconstructions)
