"""A pretraining run: corpus, network, training, model on disk."""

from __future__ import annotations

import datetime
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medmae import __version__
from medmae.config import from_json, to_json
from medmae.datasets import Case, Corpus, Dataset, DatasetSummary, load_dataset, validate
from medmae.datasets.corpus_building import build_corpus
from medmae.datasets.preprocessing import ORIENTATION, Preprocessing
from medmae.errors import BadInput
from medmae.files import atomic_path, read_json, write_json
from medmae.models import ModelInfo, save_model
from medmae.pretraining.config import PretrainConfig, resolve_pretrain_config
from medmae.pretraining.method import PretrainingMethod, Reconstructions
from medmae.pretraining.registry import method_class
from medmae.run_folder import RunFolder
from medmae.training.distributed import ProcessGroup
from medmae.training.loop import LoopSettings, train
from medmae.training.progress import stage_reporter

log = logging.getLogger(__name__)
PRETRAINING_LISTS = ("training", "unlabeled")
EXAMPLES = 6


def execute(run: RunFolder) -> None:
    """Execute the pretraining run `run` (or its rest) and leave the encoder in ``run.model``."""
    spec = run.spec
    config = resolve_pretrain_config(from_json(PretrainConfig, spec["config"], "pretraining configuration"))
    group = ProcessGroup.join(config.device)
    try:
        if group.is_main:
            prepare_corpus(run, config, spec["inputs"])
            write_json(run.path / "config.json", to_json(config))
        group.barrier()
        corpus = Corpus(_corpus_folder(run, spec["inputs"]))
        method = _method(config, corpus)
        log.info("pretraining %s (%s) on %d items of %d images for %d steps", config.method, config.preset,
                 method.number_of_items, len(corpus), config.steps)
        train(method, run, _loop_settings(config), group)
        if group.is_main:
            examples = method.reconstruct(min(EXAMPLES, method.number_of_items))
            _save_examples(run.path / "reconstructions.npz", examples)
            save_encoder(run, config, method, corpus)
    finally:
        group.leave()


def _method(config: PretrainConfig, corpus: Corpus) -> PretrainingMethod:
    import torch

    cls = method_class(config.method)
    torch.manual_seed(config.seed)
    channels = corpus.items[0].shape[0]
    settings: Any = from_json(cls.Settings, config.settings, f"settings of {config.method}")
    return cls(config.preset, channels, corpus, settings, config.seed, config.weight_decay)


def _loop_settings(config: PretrainConfig) -> LoopSettings:
    assert config.steps and config.batch_size and config.learning_rate  # filled in by resolve_pretrain_config
    return LoopSettings(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate,
                        seed=config.seed, precision=config.precision,  # type: ignore[arg-type]
                        warmup=config.warmup, clip_norm=config.clip_norm, checkpoint_every=config.checkpoint_every)


def _corpus_folder(run: RunFolder, inputs: dict[str, Any]) -> Path:
    return Path(inputs["corpus"]) if inputs.get("corpus") else run.path / "corpus"


def prepare_corpus(run: RunFolder, config: PretrainConfig, inputs: dict[str, Any]) -> Corpus:
    """The corpus that the inputs describe: a ready one, or one made in the run folder (once) from a dataset or images.

    Raises:
        BadInput: no inputs, or files that cannot be used, all listed.
    """
    folder = _corpus_folder(run, inputs)
    if inputs.get("corpus"):
        return Corpus(folder)
    if (folder / "corpus.json").is_file() and (folder / "preprocessing.json").is_file():
        return Corpus(folder)
    dataset, cases = _cases(inputs, config)
    summary = validate(replace(dataset, lists={"pretraining": cases}), ["pretraining"],
                       on_progress=stage_reporter(run, "validate"))
    preprocessing = pretraining_preprocessing(config, dataset, summary)
    corpus = build_corpus(folder, dataset, cases, preprocessing, with_labels=False,
                          on_progress=stage_reporter(run, "corpus"), should_stop=lambda: run.stop_requested)
    write_json(folder / "preprocessing.json", to_json(preprocessing))
    return corpus


def _cases(inputs: dict[str, Any], config: PretrainConfig) -> tuple[Dataset, tuple[Case, ...]]:
    """The images to pretrain on, without their labels, and a dataset that describes them."""
    if inputs.get("dataset"):
        dataset = load_dataset(inputs["dataset"])
        split = inputs.get("split")
        keys = [split] if split else [key for key in PRETRAINING_LISTS if dataset.lists.get(key)]
        cases = tuple(replace(case, label=None, class_value=None) for key in keys for case in dataset.cases(key))
        if not cases:
            raise BadInput(f"The dataset {dataset.path} has no images in {' or '.join(PRETRAINING_LISTS)}.")
        if config.modality:
            dataset = replace(dataset, modalities=(config.modality,) * len(dataset.modalities))
        return dataset, cases
    if inputs.get("images"):
        from medmae.volumes import find_images

        found = find_images(inputs["images"])
        cases = tuple(Case(id=image.output_name, images=(image.path,)) for image in found)
        modality = config.modality or _guessed_modality(cases[0])
        dataset = Dataset(path=Path("images"), name="images", task=None, modalities=(modality,), labels={},
                          lists={"unlabeled": cases}, subsets={})
        return dataset, cases
    raise BadInput("There is nothing to pretrain on. Give --dataset, --images or a prepared corpus.")


def _guessed_modality(case: Case) -> str:
    """CT where values go far below zero as in Hounsfield units, DX for 2-D images, MR otherwise; logged."""
    from medmae.volumes import read_image

    volume = read_image(case.images[0])
    modality = "DX" if volume.is_2d else "CT" if float(np.min(volume.array)) < -500 else "MR"
    log.info("modality taken as %s from the first image; say otherwise with --set modality=...", modality)
    return modality


def pretraining_preprocessing(config: PretrainConfig, dataset: Dataset, summary: DatasetSummary) -> Preprocessing:
    """The preprocessing of a pretraining corpus: the method's dimensions and window, the corpus's median spacing."""
    from medmae.networks.presets import preset
    from medmae.volumes import default_intensity

    cls = method_class(config.method)
    spacing = config.spacing_mm
    if spacing is None and cls.spatial_dims == 3:
        spacing = summary.towards(ORIENTATION[3]).median_spacing_mm
    intensities = tuple(default_intensity(modality, target=config.method) for modality in dataset.modalities)  # type: ignore[arg-type]
    channels = config.channels or (len(intensities) if len(intensities) > 1 else 1)
    return Preprocessing(
        spatial_dims=cls.spatial_dims,  # type: ignore[arg-type]
        orientation=ORIENTATION[cls.spatial_dims],
        spacing_mm=spacing,
        input_size=tuple(preset(config.method, config.preset).input_size),
        intensity=intensities if len(set(intensities)) > 1 else intensities[:1],
        channels=channels,
    )


def save_encoder(run: RunFolder, config: PretrainConfig, method: PretrainingMethod, corpus: Corpus) -> Path:
    """Write the trained encoder, with decoder and mask token, as the run's model."""
    preprocessing = from_json(Preprocessing, read_json(corpus.folder / "preprocessing.json"), "corpus preprocessing")
    modality = corpus.items[0].modality
    info = ModelInfo(
        name=run.path.resolve().name, task="encoder", method=config.method, preset=config.preset,
        architecture=method.architecture,
        channels=[{"name": f"{modality} {index}" if method.channels > 1 else modality, "modality": modality}
                  for index in range(method.channels)],
        labels=[], modality=modality, **preprocessing.model_fields(),
        training={"images": len(corpus), "steps": config.steps, "batch_size": config.batch_size, "seed": config.seed,
                  "subjects": len({item.subject for item in corpus.items})},
        medmae=__version__, created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return save_model(run.model, info, method.network)


def _save_examples(path: Path, examples: Reconstructions) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, images=examples.images, masked=examples.masked,
                            reconstructions=examples.reconstructions)
