"""Before training: files are validated, the preprocessing is decided, and the corpora are written."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medmae.config import to_json
from medmae.datasets import DatasetSummary, validate
from medmae.datasets.corpus_building import build_corpus
from medmae.datasets.preprocessing import ORIENTATION, Preprocessing
from medmae.files import write_json
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.planning import Plan, with_flips
from medmae.models import ModelInfo, load_state
from medmae.pretraining.network_grid import network_orientation, warn_of_other_slices
from medmae.run_folder import RunFolder
from medmae.training.progress import stage_reporter

if TYPE_CHECKING:
    from medmae.networks.presets import Preset
    from medmae.volumes import Intensity

log = logging.getLogger(__name__)


def prepare(run: RunFolder, plan: Plan) -> None:
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
        if name == "validation" and not validates_while_training(plan.config):
            continue
        build_corpus(run.path / f"corpus-{name}", plan.dataset, cases, preprocessing, with_labels=True,
                     on_progress=stage_reporter(run, f"corpus of {name} cases"), should_stop=lambda: run.stop_requested)
    settle(run, plan, summary, preprocessing)


def validates_while_training(config: FinetuneConfig) -> bool:
    """Whether the validation cases are read during training.

    With folds the finished ensemble is scored on them once, unless they decide when to stop.
    """
    return config.folds is None or config.patience is not None


def settle(run: RunFolder, plan: Plan, summary: DatasetSummary, preprocessing: Preprocessing) -> None:
    """Write what is decided before training; from then on the run never prepares again.

    `summary` is of the training cases alone.
    """
    write_json(run.path / "config.json", to_json(with_flips(plan, preprocessing.orientation).config))
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
    orientation = _orientation(plan, numbers, summary)
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


def _orientation(plan: Plan, numbers: Preset, summary: DatasetSummary) -> str:
    """The axes of the network's input: the encoder's; from scratch, for thin volumes, with their slices along k."""
    towards = summary.towards(ORIENTATION[numbers.spatial_dims])
    if plan.like is not None and numbers.spatial_dims == 3:
        warn_of_other_slices(numbers, plan.like.orientation, towards.shapes, towards.spacings_mm)
        return plan.like.orientation
    return network_orientation(numbers, towards.shapes, towards.spacings_mm)


def _intensities_by_modality(info: ModelInfo) -> dict[str, Intensity]:
    """How a model normalises images of each modality that it knows."""
    intensities = Preprocessing.of(info).intensity
    found = {info.modality: intensities[0]}
    for number, channel in enumerate(info.channels[:info.image_channels]):
        found.setdefault(channel.get("modality", info.modality), intensities[min(number, len(intensities) - 1)])
    return found


def ranges_seen(summary: DatasetSummary) -> dict[str, Any]:
    """What the training data looked like, for the warning that an image is unlike it: least and greatest per axis.

    ``percentiles``: for each channel the range of the cases' 0.5, 50 and 99.5 % values, where voxels were read. The
    axes are those of `summary`, which must be the same for all cases.
    """
    spacings, shapes = np.array(summary.spacings_mm), np.array(summary.shapes)
    return {"spacing_mm": [spacings.min(0).tolist(), spacings.max(0).tolist()],
            "shape": [shapes.min(0).tolist(), shapes.max(0).tolist()],
            "percentiles": summary.to_json()["percentiles"]}
