"""Finetuning for segmentation in 2-D: which slices are seen, with which neighbours, from which encoder, which loss."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from inference_helpers import COLOURS
from tiny_training_data import write_pictures, write_volumes

from medmae import run as medmae_run
from medmae.config import to_json
from medmae.datasets import Corpus, CorpusWriter
from medmae.datasets.preprocessing import Preprocessing
from medmae.datasets.summary import CaseSummary, DatasetSummary
from medmae.errors import BadInput
from medmae.files import read_json
from medmae.finetuning.config import AugmentationConfig, FinetuneConfig, finetune_config
from medmae.finetuning.run import build_finetuning_network, finetuning_preprocessing, make_plan
from medmae.finetuning.segmentation import DiceCrossEntropy, SegmentationTask
from medmae.inference.config import EvaluateConfig
from medmae.inference.segmenter import Segmenter
from medmae.models import ModelInfo, load_info, load_state, save_model
from medmae.networks import architecture_for, build_network
from medmae.run_folder import RunFolder
from medmae.training.randomness import Draw
from medmae.volumes import default_intensity, read_image

STILL = AugmentationConfig(rotation_degrees=0, scale=(1, 1), flip_axes=(), brightness=0, contrast=0, gamma=(1, 1),
                           noise=0, blur=0)


def task_of(folder: Path, image: np.ndarray, label: np.ndarray, size: tuple[int, int], **config) -> SegmentationTask:
    with CorpusWriter(folder, settings={}) as writer:
        writer.add("case", image, (3.0, 1.0, 1.0), "MR", {}, label=label)
    network = torch.nn.Conv2d(1, 3, 1)
    return SegmentationTask(network, FinetuneConfig(augmentation=STILL, **config), Corpus(folder), None, size,
                            ["background", "rim", "core"])


def draws(number: int) -> list[Draw]:
    return [Draw(epoch=epoch, item=0) for epoch in range(number)]


def thin_target(slices: int = 40, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Every slice holds its own number / 64; the rim (class 1) lies in slices 7 and 8, the core (class 2) in one."""
    image = np.broadcast_to((np.arange(slices) / 64)[None, :, None, None], (1, slices, side, side)).astype(np.float32)
    label = np.zeros((slices, side, side), np.uint8)
    label[7:9, 4:12, 4:12] = 1
    label[slices * 3 // 4, 7:9, 7:9] = 2
    return np.ascontiguousarray(image), label


@pytest.mark.parametrize(("fraction", "low", "high"), [(1.0, 1.0, 1.0), (0.67, 0.6, 0.8), (0.0, 0.01, 0.15)])
def test_slices_with_labels_are_drawn_as_often_as_was_asked_and_every_class_alike(tmp_path, fraction, low, high):
    task = task_of(tmp_path / "corpus", *thin_target(), (16, 16), foreground_fraction=fraction)
    targets = task.load_batch(draws(300))["targets"]
    labelled = [set(target.unique().tolist()) - {0} for target in targets]
    assert low <= np.mean([bool(one) for one in labelled]) <= high  # 3 of 40 slices have labels
    if fraction == 1.0:
        assert 0.4 < np.mean([one == {2} for one in labelled]) < 0.6  # though the rim has 32 times as many voxels


@pytest.mark.parametrize("context", [0, 1, 3])
def test_a_view_is_a_slice_with_its_neighbours_and_its_own_label(tmp_path, context):
    image, label = thin_target(slices=9)
    task = task_of(tmp_path / "corpus", image, label, (4, 4), context=context, foreground_fraction=0.5)
    batch = task.load_batch(draws(40))
    assert batch["images"].shape == (40, 2 * context + 1, 4, 4)
    seen = set()
    for view, target in zip(batch["images"], batch["targets"], strict=True):
        numbers = (view[:, 2, 2] * 64).round().int().tolist()
        middle = numbers[context]
        assert numbers == [min(max(middle + offset, 0), 8) for offset in range(-context, context + 1)]
        assert set(target.unique().tolist()) <= set(np.unique(label[middle]).tolist())
        seen.add(middle)
    assert {0, 8} <= seen


def test_of_slices_larger_than_the_window_every_part_is_seen(tmp_path):
    label = np.zeros((3, 64, 20), np.uint8)
    label[1, 60:63, 2:5] = 1  # far from the middle
    image = np.broadcast_to((np.arange(64) / 64)[:, None], (1, 3, 64, 20)).astype(np.float32)
    task = task_of(tmp_path / "corpus", np.ascontiguousarray(image), label, (16, 32), foreground_fraction=1.0)
    assert all((target == 1).any() for target in task.load_batch(draws(20))["targets"])
    task = task_of(tmp_path / "other", np.ascontiguousarray(image), label, (16, 32), foreground_fraction=0.0)
    rows = [view[0, :, 16] for view in task.load_batch(draws(200))["images"]]
    assert min(row.min() for row in rows) < 2 / 64 and max(row.max() for row in rows) > 62 / 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_of_half_precision_logits_is_that_of_full_precision_where_their_sums_would_overflow(dtype):
    labels = torch.zeros(4, 320, 320, dtype=torch.long)
    labels[:, 60:260, 60:260] = 1  # 160,000 pixels: more than the 65,504 that half precision can count to
    labels[:, :20] = 2
    logits = (12.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) + torch.randn(4, 3, 320, 320)).to(dtype)
    assert torch.isinf(torch.softmax(logits.float(), 1).half().square()[:, 1].sum(dtype=torch.float16))
    exact = DiceCrossEntropy(0.6, 0.4)(logits.float(), labels)
    logits.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = DiceCrossEntropy(0.6, 0.4)(logits, labels)
    assert all(torch.equal(found[name], exact[name]) and found[name].dtype == torch.float32 for name in exact)
    (2.0**16 * found["loss"]).backward()  # scaled as in training with fp16
    assert torch.isfinite(logits.grad).all() and (logits.grad[:, 1, 60:260, 60:260] != 0).any()


def saved_model(folder: Path, task: str, *, channels: int = 1, classes: int = 3, modality: str = "MR", context: int = 0,
                size: int = 56, **arguments) -> Path:
    """A model of VIS-MAE whose sizes are no preset's."""
    torch.manual_seed(5)
    architecture = architecture_for("vis-mae", "base", task, channels, classes)
    architecture["arguments"] |= {"width": 12, "depths": [2, 2, 4], "heads": [1, 2, 4], **arguments}
    labels = [{"name": f"label {number}", "value": number, "color": COLOURS[number], "terminology": None}
              for number in range(classes)] if task != "encoder" else []
    info = ModelInfo(name="imported", task=task, method="vis-mae", preset="base", architecture=architecture,
                     spatial_dims=2, channels=[{"name": modality, "modality": modality}] * channels, labels=labels,
                     modality=modality, orientation="LPS", input_size=[size, size], context=context,
                     intensity={"kind": "robust", "mean": 0.2, "std": 0.3})
    return save_model(folder, info, build_network(architecture))


def plan_and_network(dataset: Path, config: FinetuneConfig | None = None, **inputs):
    plan = make_plan(config or FinetuneConfig(), {"dataset": str(dataset), **{key: str(path) for key, path
                                                                               in inputs.items()}})
    preprocessing = finetuning_preprocessing(plan, DatasetSummary((CaseSummary("a", (20, 24, 22), (1.0, 1.0, 1.0)),)))
    return (plan, preprocessing, *build_finetuning_network(plan, preprocessing.network_channels))


def test_the_network_has_the_sizes_of_its_encoder_not_of_a_preset(tmp_path, caplog):
    encoder = saved_model(tmp_path / "encoder", "encoder", channels=3, window=4)
    dataset = write_volumes(tmp_path, {"training": 1})
    with caplog.at_level(logging.INFO):
        plan, preprocessing, network, architecture = plan_and_network(dataset, encoder=encoder)
    wanted = {"width": 12, "depths": [2, 2, 4], "heads": [1, 2, 4], "window": 4, "channels": 1, "classes": 3}
    assert architecture["name"] == "swin_unet" and architecture["arguments"].items() >= wanted.items()
    assert preprocessing.input_size == (56, 56) and preprocessing.channels == 1  # grey volumes: the stem is folded
    assert preprocessing.intensity[0].mean == 0.2
    assert "100.0% of the encoder" in caplog.text and "new: decoder.skips, final_expand, head" in caplog.text
    stem = load_state(encoder)["encoder.patch_embed.proj.weight"]
    torch.testing.assert_close(network.state_dict()["encoder.patch_embed.proj.weight"], stem.sum(1, keepdim=True))
    colours = DatasetSummary((CaseSummary("a", (1, 24, 22), (1.0, 1.0, 1.0), channels=3),))
    assert finetuning_preprocessing(plan, colours).channels == 3


def test_every_channel_is_normalised_as_its_own_modality(tmp_path):
    dataset = write_volumes(tmp_path, {"training": 1})
    data = json.loads(dataset.read_text()) | {"modality": {"0": "CT", "1": "PET"}}
    data["training"][0]["image"] = [data["training"][0]["image"]] * 2
    dataset.write_text(json.dumps(data))
    encoder = saved_model(tmp_path / "of-ct", "encoder", modality="CT")
    info = read_json(encoder / "model.json")
    window = {"kind": "ct_window", "low": -100.0, "high": 300.0, "mean": 0.2, "std": 0.3}
    (encoder / "model.json").write_text(json.dumps(info | {"intensity": window}))
    _, prepared, _, architecture = plan_and_network(dataset, encoder=encoder)
    of_ct, of_pet = prepared.intensity
    assert architecture["arguments"]["channels"] == 2
    assert to_json(of_ct) == window  # as the encoder has it
    assert (of_pet.kind, of_pet.mean, of_pet.std) == (default_intensity("PT").kind, 0.2, 0.3)
    both = saved_model(tmp_path / "both", "segmentation", channels=2)
    info = read_json(both / "model.json")
    info["channels"] = [{"name": "PT", "modality": "PT"}, {"name": "CT", "modality": "CT"}]
    info["modality"] = "PT"
    info["intensity"] = {"channels": [{"kind": "robust", "mean": mean, "std": 1.0} for mean in (0.5, 0.7)]}
    (both / "model.json").write_text(json.dumps(info))
    assert [one.mean for one in plan_and_network(dataset, encoder=both)[1].intensity] == [0.7, 0.5]


def test_a_from_scratch_arm_can_have_the_network_of_the_encoder_beside_it(tmp_path):
    encoder = saved_model(tmp_path / "encoder", "encoder", window=4)
    dataset = write_volumes(tmp_path, {"training": 1})
    _, prepared, network, architecture = plan_and_network(dataset, encoder=encoder)
    plan, fresh_prepared, fresh, same = plan_and_network(dataset, encoder="none", like=encoder)
    assert (same, fresh_prepared) == (architecture, prepared)
    assert plan.encoder is None and plan.config.layer_decay == 1.0
    name = "encoder.stages.0.blocks.0.mlp.fc1.weight"
    assert torch.equal(network.state_dict()[name], load_state(encoder)[name])
    assert not torch.equal(fresh.state_dict()[name], load_state(encoder)[name])


@pytest.mark.parametrize(("classes", "new"), [(3, "nothing"), (4, "head")])
def test_a_segmentation_network_is_finetuned_further_with_decoder_skips_and_head(tmp_path, caplog, classes, new):
    model = saved_model(tmp_path / "model", "segmentation", channels=3, classes=classes, depths=[2, 2, 6])
    with caplog.at_level(logging.INFO):
        _, _, network, architecture = plan_and_network(write_volumes(tmp_path, {"training": 1}), encoder=model)
    assert architecture["arguments"]["depths"] == [2, 2, 6]
    assert f"filled; new: {new}" in caplog.text
    source, found = load_state(model), network.state_dict()
    assert all(torch.equal(found[name], source[name]) for name in found
               if "patch_embed.proj.weight" not in name and not (classes == 4 and name.startswith("head")))
    images = torch.randn(1, 1, 56, 56)
    original = build_network(load_info(model).architecture).eval()
    original.load_state_dict(source)
    if classes == 3:
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(images), original(images.expand(-1, 3, -1, -1)), rtol=1e-3,
                                       atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_equal_slices_give_what_the_encoder_gives_for_one(tmp_path, channels):
    encoder = saved_model(tmp_path / "encoder", "encoder", channels=channels)
    dataset = write_volumes(tmp_path, {"training": 1})
    _, preprocessing, network, _ = plan_and_network(dataset, FinetuneConfig(context=2), encoder=encoder)
    assert preprocessing.network_channels == 5
    source = build_network(load_info(encoder).architecture).eval()
    source.load_state_dict(load_state(encoder))
    image = torch.randn(1, 1, 56, 56)
    with torch.no_grad():
        expected = source.features(image.expand(-1, channels, -1, -1))
        torch.testing.assert_close(network.eval().encoder.features(image.expand(-1, 5, -1, -1)), expected, rtol=1e-3,
                                   atol=1e-4)


def test_the_neighbours_of_a_finetuned_model_are_kept_unless_others_are_asked_for(tmp_path):
    model = saved_model(tmp_path / "model", "segmentation", channels=3, context=1)
    dataset = write_volumes(tmp_path, {"training": 1})
    assert plan_and_network(dataset, encoder=model)[1].context == 1
    assert plan_and_network(dataset, FinetuneConfig(context=0), encoder=model)[1].network_channels == 1
    assert plan_and_network(dataset, FinetuneConfig(context=2), encoder=model)[1].network_channels == 5


def test_volumes_are_learned_with_neighbours_and_scored_as_whole_cases(tmp_path):
    dataset = write_volumes(tmp_path, {"training": 2, "validation": 1})
    small = saved_model(tmp_path / "small", "encoder", width=24, depths=[2, 2], heads=[2, 4], size=28)
    config = FinetuneConfig(steps=50, batch_size=4, context=1, input_size=(28, 28), ema=0.5, validations=1,
                            learning_rate=5e-3, augmentation=STILL)
    run = RunFolder.create(tmp_path / "out", "finetune", to_json(config),
                           {"dataset": str(dataset), "encoder": "none", "like": str(small)})
    assert medmae_run.execute(run.path) == 0, run.state()["reason"]
    info = load_info(run.model)
    assert [channel["name"] for channel in info.channels] == ["MR -1", "MR", "MR +1"]
    assert (info.context, info.image_channels, info.architecture["arguments"]["channels"]) == (1, 1, 3)
    assert Preprocessing.of(info).context == 1 and info.input_size == [28, 28]
    evaluation = RunFolder.create(tmp_path / "evaluation", "evaluate", to_json(EvaluateConfig(precision="fp32")),
                                  {"dataset": str(dataset), "split": "validation", "model": str(run.path)})
    assert medmae_run.execute(evaluation.path) == 0, evaluation.state()["reason"]
    scores = read_json(evaluation.path / "result.json")
    # Training scores on its own grid (here finer than the volume's), so the figures agree, but not to the last digit
    assert scores["mean_dice"] == pytest.approx(read_json(run.path / "validation.json")["mean_dice"], abs=0.1)
    assert len(scores["cases"]) == 1 and scores["mean_dice"] > 0.3
    image = read_image(tmp_path / "case0.nii.gz")
    assert Segmenter(run.path).segment(image).shape == image.geometry.shape


@pytest.mark.parametrize(("change", "message"), [
    ({"method": "gl-mae", "context": 1}, "gl-mae sees whole volumes"),
    ({"method": "gl-mae", "input_size": (48, 48)}, "gl-mae needs 3"),
    ({"method": "vis-mae", "input_size": (48, 48, 48)}, "vis-mae needs 2"),
])
def test_wishes_that_no_network_of_the_method_can_meet_are_refused(tmp_path, change, message):
    dataset = write_volumes(tmp_path, {"training": 1})
    with pytest.raises(BadInput, match=message):
        make_plan(replace(FinetuneConfig(), **change), {"dataset": str(dataset), "encoder": "none"})
    assert make_plan(FinetuneConfig(method="gl-mae", context=0), {"dataset": str(dataset)}).config.context == 0


@pytest.mark.parametrize("nonsense", ["context=-1", "context=1.5", "context=true", "input_size=[0,5]", "input_size=[]"])
def test_numbers_that_mean_nothing_are_refused(nonsense):
    with pytest.raises(BadInput, match=nonsense.partition("=")[0]):
        finetune_config([nonsense])


def test_pictures_have_no_neighbours_and_the_log_says_so(tmp_path, caplog):
    plan = make_plan(FinetuneConfig(context=1), {"dataset": str(write_pictures(tmp_path, {"training": 4}))})
    summary = DatasetSummary((CaseSummary("a", (1, 40, 32), (1.0, 1.0, 1.0), is_2d=True),))
    with caplog.at_level(logging.WARNING):
        assert finetuning_preprocessing(plan, summary).network_channels == 3
    assert "gives pictures nothing" in caplog.text


@pytest.mark.parametrize(("change", "message"), [
    ({"context": 1}, "3 slices"), ({"context": -1}, "context -1"),
    ({"context": 1, "spatial_dims": 3, "input_size": [8, 8, 8]}, "only 2-D"), ({"context": "1"}, "context")])
def test_a_description_whose_neighbours_contradict_it_is_refused(tmp_path, change, message):
    model = saved_model(tmp_path / "model", "segmentation")
    path = model / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=message):
        load_info(model)
