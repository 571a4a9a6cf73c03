"""Finetuning: label budget, augmentation, layer-wise rates, and that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training_data import write_pictures, write_volumes

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.datasets.summary import CaseSummary, DatasetSummary
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.finetuning.augmentation import random_matrix, vary_intensity
from medmae.finetuning.config import AugmentationConfig, FinetuneConfig, default_flip_axes, finetune_config
from medmae.finetuning.planning import make_plan, with_flips
from medmae.finetuning.preparing import finetuning_preprocessing
from medmae.finetuning.saving import describe_model
from medmae.finetuning.segmentation import DiceCrossEntropy
from medmae.finetuning.task import encoder_depths
from medmae.models import load_info, load_network
from medmae.models.labels import model_labels
from medmae.networks import architecture_for, build_network
from medmae.run_folder import RunFolder


def finetune(out: Path, dataset: Path, config: FinetuneConfig, **inputs: object) -> RunFolder:
    run = RunFolder.create(out, "finetune", to_json(config), {"dataset": str(dataset), "encoder": "none", **inputs})
    assert medmae_run.execute(out) == 0, run.state()["reason"]
    return run


def test_a_few_steps_segment_blobs_better_than_nothing(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 2, "validation": 1})
    config = FinetuneConfig(method="gl-mae", preset="tiny", steps=30, ema=0.5, validations=1, learning_rate=3e-3,
                            input_size=(32, 32, 32), augmentation=AugmentationConfig(rotation_degrees=0, scale=(1, 1)))
    run = finetune(tmp_path / "out", dataset, config)
    scores = read_json(run.path / "validation.json")
    assert scores["mean_dice"] > 0.3
    info = load_info(run.model)
    assert [(label["name"], label["value"]) for label in info.labels] == [("background", 0), ("dim", 1), ("bright", 2)]
    assert load_network(run.model)(torch.zeros(1, 1, 48, 48, 48)).shape == (1, 3, 48, 48, 48)


def test_pictures_are_classified_after_a_few_steps(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 12, "validation": 8})
    config = FinetuneConfig(method="vis-mae", preset="tiny", steps=25, batch_size=6, ema=0.5, validations=1)
    run = finetune(tmp_path / "out", dataset, config)
    assert read_json(run.path / "validation.json")["auc"] > 0.9
    assert load_info(run.model).task == "classification"


def test_training_sees_the_drawn_cases_and_no_others(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 5, "validation": 1, "test": 1})
    four = make_plan(FinetuneConfig(cases=4, seed=3), {"dataset": str(dataset)}).training
    two = make_plan(FinetuneConfig(cases=2, seed=3), {"dataset": str(dataset)}).training
    assert len(four) == 4
    assert {case.id for case in two} < {case.id for case in four}
    assert {case.subject for case in four} <= {f"s{number}" for number in range(5)}


@pytest.mark.parametrize(("change", "message"), [
    ({"cases": 9}, "9 training cases were asked for"),
    ({"subset": "n4"}, "no subset 'n4'"),
    ({"encoder": "nowhere"}, "nowhere"),
])
def test_wishes_that_cannot_be_met_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    dataset = write_volumes(tmp_path, {"training": 2})
    config = FinetuneConfig(cases=change.pop("cases", None))
    with pytest.raises(BadInput, match=message):
        make_plan(config, {"dataset": str(dataset), **change})


def test_subset_and_cases_together_are_refused(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 2})
    data = json.loads(dataset.read_text()) | {"subsets": {"n1": ["case0.nii.gz"]}}
    dataset.write_text(json.dumps(data))
    assert len(make_plan(FinetuneConfig(), {"dataset": str(dataset), "subset": "n1"}).training) == 1
    with pytest.raises(BadInput, match="not both"):
        make_plan(FinetuneConfig(cases=1), {"dataset": str(dataset), "subset": "n1"})


def test_a_dataset_without_labels_is_refused(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"unlabeled": 2})
    with pytest.raises(BadInput, match="no label"):
        make_plan(FinetuneConfig(), {"dataset": str(dataset)})


@pytest.mark.parametrize(("method", "blocks"), [("gl-mae", ["blocks.0.", "blocks.5."]),
                                                ("vis-mae", ["stages.0.blocks.0.", "stages.2.blocks.1."])])
def test_rates_fall_block_by_block_from_the_head_to_the_stem(method: str, blocks: list[str]) -> None:
    network = build_network(architecture_for(method, "tiny", "segmentation", 1, 2))
    depth = encoder_depths(network)
    depths = {name: depth(name) for name, _ in network.named_parameters()}
    assert all(value is None for name, value in depths.items() if not name.startswith("encoder."))
    assert all(value is not None for name, value in depths.items() if name.startswith("encoder."))
    assert depths["encoder.patch_embed.proj.weight"] == 7
    for part, expected in zip(blocks, (6, 1), strict=True):
        assert {value for name, value in depths.items() if name.startswith(f"encoder.{part}")} == {expected}
    assert {value for value in depths.values() if value} == set(range(1, 8))
    merging = {name: value for name, value in depths.items() if ".downsample." in name}
    assert all(value == depths[f"{name.partition('.downsample.')[0]}.blocks.1.norm1.weight"]
               for name, value in merging.items())


def test_both_arms_get_the_same_schedule_and_only_pretrained_layers_are_protected(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    scratch = make_plan(FinetuneConfig(), {"dataset": str(dataset), "encoder": "none"}).config
    assert scratch.layer_decay == 1.0
    assert (scratch.method, scratch.preset) == ("gl-mae", "tiny")


@pytest.mark.parametrize(("labels", "axes"), [
    (["liver", "spleen"], (2,)), (["left kidney", "right kidney"], ()), (["kidney_left"], ()), (["bright"], (2,)),
    (["LungLeft"], ()), (["rightlung"], ()), (["kidney-left"], ()), (["kidney (L)"], ()),
])
def test_sided_labels_are_never_mirrored(labels: list[str], axes: tuple[int, ...]) -> None:
    assert default_flip_axes("segmentation", labels, 3, "RAS") == axes
    assert default_flip_axes("classification", labels, 3, "RAS") == ()


def test_flips_can_be_switched_off(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    plan = make_plan(finetune_config(["flip_axes=[]"]), {"dataset": str(dataset), "encoder": "none"})
    assert with_flips(plan, "RAS").config.augmentation.flip_axes == ()


@pytest.mark.parametrize(("orientation", "axis"), [("RAS", 2), ("LPS", 2), ("ASR", 0), ("SRA", 1)])
def test_left_and_right_are_mirrored_whichever_axis_they_lie_on(tmp_path: Path, orientation: str, axis: int) -> None:
    """Networks for thin sagittal volumes see them with left and right along k."""
    dataset = write_volumes(tmp_path, {"training": 1})
    plan = make_plan(FinetuneConfig(preset="tiny-thin"), {"dataset": str(dataset), "encoder": "none"})
    assert with_flips(plan, orientation).config.augmentation.flip_axes == (axis,)


def test_a_model_tells_along_which_axes_its_training_mirrored_images(tmp_path: Path) -> None:
    plan = make_plan(FinetuneConfig(method="gl-mae", preset="tiny"),
                     {"dataset": str(write_volumes(tmp_path, {"training": 1})), "encoder": "none"})
    run = RunFolder.create(tmp_path / "run", "finetune", {}, {})
    (run.path / "ranges.json").write_text("{}")
    preprocessing = finetuning_preprocessing(plan, DatasetSummary((CaseSummary("a", (20, 24, 22), (1.0, 1.0, 1.0)),)))
    architecture = architecture_for("gl-mae", "tiny", "segmentation", 1, 3)
    info = describe_model(run, plan, preprocessing, architecture, training={}, scores={}, calibration={})
    assert preprocessing.orientation == "RAS" and info.training["flip_axes"] == [2]


def test_models_keep_negative_class_values() -> None:
    assert [label["value"] for label in model_labels({"no": -1, "yes": 1})] == [-1, 1]


def test_the_spacing_is_the_median_along_the_networks_axes_however_the_scans_are_stored(tmp_path: Path) -> None:
    plan = make_plan(FinetuneConfig(), {"dataset": str(write_volumes(tmp_path, {"training": 1})), "encoder": "none"})
    # Sagittal scans of 4 mm slices: i runs to the back, j up, k to the right; one stored as RAS
    stored = CaseSummary("a", (20, 256, 200), (4.0, 0.5, 0.6), axes="PSR")
    turned = CaseSummary("b", (256, 200, 20), (0.5, 0.6, 4.0), axes="RAS")
    summary = DatasetSummary((stored, stored, turned))
    assert finetuning_preprocessing(plan, summary).spacing_mm == (0.5, 0.6, 4.0)
    assert summary.towards("RAS").shapes == [(256, 200, 20)] * 3
    assert summary.towards("LPS").towards("PSR").cases[2].spacing_mm == (4.0, 0.5, 0.6)


def test_one_class_alone_cannot_be_learned(tmp_path: Path) -> None:
    dataset = write_pictures(tmp_path, {"training": 4})
    with pytest.raises(BadInput, match="at least two classes"):
        make_plan(FinetuneConfig(cases=1), {"dataset": str(dataset), "encoder": "none"})


def test_overrides_of_the_augmentation_need_no_prefix() -> None:
    config = finetune_config(["rotation_degrees=5", "steps=7", "flip_axes=[0]"])
    assert (config.augmentation.rotation_degrees, config.steps, config.augmentation.flip_axes) == (5.0, 7, (0,))
    with pytest.raises(BadInput, match="Unknown key rotation"):
        finetune_config(["rotation=5"])


def test_matrices_keep_angles_and_stay_in_the_scale_range() -> None:
    config = AugmentationConfig(flip_axes=(0,))
    for seed in range(20):
        matrix = random_matrix(config, 3, np.random.default_rng(seed))
        gram = matrix.T @ matrix
        np.testing.assert_allclose(gram, np.eye(3) * gram[0, 0], atol=1e-9)
        assert 0.8 <= np.sqrt(gram[0, 0]) <= 1.25


def test_intensity_variation_can_be_switched_off_and_never_makes_nan() -> None:
    image = torch.linspace(-0.2, 1.2, 64).reshape(1, 4, 4, 4)
    off = AugmentationConfig(brightness=0, contrast=0, gamma=(1, 1), noise=0, blur=0)
    for seed in range(20):
        torch.testing.assert_close(vary_intensity(image, off, np.random.default_rng(seed)), image, atol=1e-5, rtol=1e-5)
        assert torch.isfinite(vary_intensity(image, AugmentationConfig(), np.random.default_rng(seed))).all()


def test_the_loss_is_zero_for_a_perfect_prediction_also_in_half_precision() -> None:
    labels = torch.randint(0, 3, (2, 64, 64), generator=torch.Generator().manual_seed(0))
    logits = 60.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).to(torch.bfloat16)
    figures = DiceCrossEntropy(1.0, 1.0)(logits, labels)
    assert float(figures["loss"]) == pytest.approx(0, abs=1e-3)
    wrong = DiceCrossEntropy(1.0, 1.0)(replace_first(logits), labels)
    assert float(wrong["loss"]) > 0.5


def replace_first(logits: torch.Tensor) -> torch.Tensor:
    return torch.roll(logits, 1, dims=1)


def test_configurations_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="between 0"):
        replace(FinetuneConfig(), ema=1.0)
    for nonsense in ("learning_rate=-1", "clip_norm=0", "checkpoint_every=0", "warmup=-0.1", "flip_axes=[3]",
                     "noise=-1", "validations=-1", "cases=0"):
        with pytest.raises(BadInput, match=nonsense.partition("=")[0]):
            finetune_config([nonsense])
    with pytest.raises(BadInput, match="foreground_fraction"):
        finetune_config(["foreground_fraction=2"])
