"""Options of 3-D finetuning: deep supervision, positions, pooling and heads, frozen encoders, stems, rates by depth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the usual name
import torch
from tiny_models import tiny_encoder
from tiny_training_data import write_pictures, write_volumes
from torch import nn

from medmae.cli.app import run as medmae_command
from medmae.config import to_json
from medmae.datasets import Corpus, CorpusWriter
from medmae.datasets.summary import CaseSummary, DatasetSummary
from medmae.errors import BadInput
from medmae.finetuning.building import build_finetuning_network
from medmae.finetuning.config import FinetuneConfig
from medmae.finetuning.planning import make_plan
from medmae.finetuning.preparing import finetuning_preprocessing
from medmae.finetuning.segmentation import DeepSupervision, DiceCrossEntropy, SegmentationTask
from medmae.finetuning.task import AveragedNetwork, encoder_depths
from medmae.models import load_info, load_state
from medmae.networks import build_network
from medmae.run_folder import RunFolder
from medmae.training.randomness import Draw


def network_of(dataset: Path, config: FinetuneConfig | None = None, **inputs: object) -> tuple[nn.Module, dict]:
    plan = make_plan(config or FinetuneConfig(), {"dataset": str(dataset), **{key: str(value) for key, value
                                                                               in inputs.items()}})
    summary = DatasetSummary((CaseSummary("a", (20, 24, 22), (1.0, 1.0, 1.0)),))
    network, architecture = build_finetuning_network(plan, finetuning_preprocessing(plan, summary).network_channels)
    return network, architecture["arguments"]


def volumes_with_classes(folder: Path, count: int = 4, channels: int = 1) -> Path:
    """A 3-D classification data set: noise that is brighter where k is small (class 0) or large (class 1)."""
    items = []
    for number in range(count):
        noise = np.random.default_rng(number).normal(100, 5, (16, 16, 16)).astype(np.float32)
        noise[:8] += 80 * (number % 2 == 0)
        noise[8:] += 80 * (number % 2 == 1)
        names = [f"v{number}_{channel}.nii.gz" for channel in range(channels)]
        for name in names:
            sitk.WriteImage(sitk.GetImageFromArray(noise), str(folder / name))
        items.append({"image": names if channels > 1 else names[0], "label": number % 2, "subject": f"s{number}"})
    path = folder / "classes.json"
    path.write_text(json.dumps({"task": "classification", "labels": {"low": 0, "high": 1}, "training": items,
                                "modality": {str(channel): "MR" for channel in range(channels)}}))
    return path


def test_coarser_levels_count_half_as_much_each_and_see_the_nearest_labels() -> None:
    labels = torch.zeros(1, 4, 4, 8, dtype=torch.long)
    labels[..., 4:] = 1
    plain = DiceCrossEntropy(1.0, 1.0)
    levels = [torch.randn(1, 2, 4, 4, 8), torch.randn(1, 2, 2, 2, 4), torch.randn(1, 2, 1, 1, 2)]
    targets = [labels, labels[:, ::2, ::2, ::2], torch.tensor([0, 1]).reshape(1, 1, 1, 2)]
    each = [plain(logits, target)["loss"] for logits, target in zip(levels, targets, strict=True)]
    found = DeepSupervision(plain)(levels, labels)
    torch.testing.assert_close(found["loss"], (4 * each[0] + 2 * each[1] + each[2]) / 7)
    torch.testing.assert_close(found["cross_entropy"], plain(levels[0], labels)["cross_entropy"])


def test_deep_supervision_trains_the_coarser_heads_and_answers_as_before(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    network, arguments = network_of(dataset, FinetuneConfig(deep_supervision=2), encoder=encoder)
    assert arguments["deep_supervision"] == 2
    module = AveragedNetwork(network, DeepSupervision(DiceCrossEntropy(1.0, 1.0)), deep_supervision=True)
    batch = {"images": torch.randn(1, 1, 24, 16, 8), "targets": torch.randint(0, 3, (1, 24, 16, 8))}
    module(batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network(batch["images"]).shape == (1, 3, 24, 16, 8)


def test_positions_are_resized_from_the_grid_of_pretraining_only_when_asked_for(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    assert network_of(dataset, encoder=encoder)[1].get("position_grid") is None
    network, arguments = network_of(dataset, FinetuneConfig(positions="resized"), encoder=encoder)
    assert arguments["position_grid"] == [6, 6, 6]  # views of 48 voxels, patches of 8
    assert network.encoder.position_table.shape == (216, 24)
    assert network(torch.randn(1, 1, 24, 16, 40)).shape == (1, 3, 24, 16, 40)
    description = json.loads((encoder / "model.json").read_text())
    description["training"] = {"views": {"global": [32, 48, 16], "local": [16, 16, 16]}}  # set in its pretraining
    (encoder / "model.json").write_text(json.dumps(description))
    assert network_of(dataset, FinetuneConfig(positions="resized"), encoder=encoder)[1]["position_grid"] == [4, 6, 2]


def test_a_hybrid_network_has_no_table_of_positions_to_resize(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    with pytest.raises(BadInput, match="positions=resized is for networks with a table"):
        network_of(dataset, FinetuneConfig(preset="tiny-hybrid", positions="resized"))


def test_an_encoder_keeps_the_position_table_it_brings(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae", position_grid=[3, 3, 2])
    table = load_state(encoder)["encoder.position_table"]
    for positions in ("computed", "resized"):
        network, arguments = network_of(dataset, FinetuneConfig(positions=positions), encoder=encoder)  # type: ignore[arg-type]
        assert list(arguments["position_grid"]) == [3, 3, 2]
        assert torch.equal(network.encoder.position_table, table)


@pytest.mark.parametrize(("pool", "head"), [("mean", "linear"), ("mean", "mlp"), ("cls", "linear"), ("cls", "mlp")])
def test_volumes_are_classified_by_cls_or_pooled_tokens_with_either_head(tmp_path: Path, pool: str, head: str) -> None:
    dataset = volumes_with_classes(tmp_path)
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    config = FinetuneConfig(pool=pool, head=head)  # type: ignore[arg-type]
    network, arguments = network_of(dataset, config, encoder=encoder)
    assert (arguments["pool"], arguments["head"]) == (pool, head)
    assert isinstance(network.head, nn.Sequential if head == "mlp" else nn.Linear)
    source = load_state(encoder)
    if pool == "cls":  # CLS was pretrained too, and is not left behind
        assert torch.equal(network.state_dict()["encoder.cls_token"], source["encoder.cls_token"])
    assert network(torch.randn(2, 1, 16, 16, 24)).shape == (2, 2)


def test_a_frozen_encoder_stays_as_it_was_pretrained_to_the_last_bit(tmp_path: Path) -> None:
    dataset = write_volumes(tmp_path, {"training": 1})
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    network, _ = network_of(dataset, encoder=encoder)
    image, label = np.zeros((1, 8, 8, 8), np.float32), np.ones((8, 8, 8), np.uint8)
    with CorpusWriter(tmp_path / "corpus", settings={}) as writer:
        writer.add("case", image, (1.0, 1.0, 1.0), "MR", {}, label=label)
    task = SegmentationTask(network, FinetuneConfig(freeze_encoder=True, layer_decay=1.0, weight_decay=0.1),
                            Corpus(tmp_path / "corpus"), None, (8, 8, 8), ["background", "dim", "bright"])
    groups = task.parameter_groups()
    trained = {id(parameter) for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    assert trained == {id(value) for name, value in network.named_parameters() if not name.startswith("encoder.")}
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    for step in range(3):
        task.module(task.load_batch([Draw(0, step)] * 2))["loss"].backward()
        optimizer.step()
        task.after_step(step, 3)
    source = load_state(encoder)
    for name, value in task.module.average.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value, source[name]), name
    assert not torch.equal(task.module.average.head.bias, network.head.bias)


def test_four_equal_channels_give_what_the_encoder_gives_for_one(tmp_path: Path) -> None:
    dataset = volumes_with_classes(tmp_path, channels=4)
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    plan = make_plan(FinetuneConfig(), {"dataset": str(dataset), "encoder": str(encoder)})
    network, architecture = build_finetuning_network(plan, 4)
    assert architecture["arguments"]["channels"] == 4
    source = build_network(load_info(encoder).architecture)
    source.load_state_dict(load_state(encoder))
    volume = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        # the classifier's encoder has no CLS, which the tokens would attend to
        expected = build_network({"name": "vit_classifier", "arguments": architecture["arguments"] | {"channels": 1}})
        expected.load_state_dict({name: source.state_dict().get(name, value)
                                  for name, value in expected.state_dict().items()})
        torch.testing.assert_close(network.encoder.features(volume.expand(-1, 4, -1, -1, -1)),
                                   expected.encoder.features(volume), rtol=1e-4, atol=1e-5)


def test_finer_tokens_than_the_encoders_are_an_option_and_the_log_names_the_resized_stem(tmp_path, caplog) -> None:
    dataset, encoder = write_volumes(tmp_path, {"training": 2}), tiny_encoder(tmp_path / "encoder", "gl-mae")
    with caplog.at_level("INFO"):
        network, arguments = network_of(dataset, FinetuneConfig(patch=(2, 4, 4)), encoder=encoder)
    assert arguments["patch"] == [2, 4, 4] and len(arguments["skip_blocks"]) == 1
    assert "resized encoder.patch_embed.proj.weight: " in caplog.text
    assert network(torch.randn(1, 1, 6, 20, 16)).shape == (1, 3, 6, 20, 16)
    with pytest.raises(BadInput, match="powers of two"):
        network_of(dataset, FinetuneConfig(patch=(3, 8, 8)), encoder=encoder)


@pytest.mark.parametrize(("change", "told"), [
    ({"pool": "cls"}, "pool=cls is an option of gl-mae classification, but this is gl-mae segmentation"),
    ({"head": "mlp"}, "head=mlp is an option of gl-mae classification"),
    ({"deep_supervision": 1, "network": "dynunet"}, "with network=dynunet"),
    ({"positions": "resized", "network": "unet"}, "positions=resized is an option of gl-mae"),
    ({"patch": (4, 8, 8), "network": "unet"}, r"patch=\[4, 8, 8\] is an option of gl-mae"),
    ({"freeze_encoder": True}, "a random one would never learn"),
    ({"patience": 2}, "no labelled validation cases"),
    ({"folds": 3}, "3 folds were asked for, but the cases come from 2 subjects"),
])
def test_nonsense_is_refused_before_anything_is_computed(tmp_path: Path, change: dict, told: str) -> None:
    dataset = write_volumes(tmp_path, {"training": 2})
    inputs: dict = {"dataset": str(dataset), "encoder": "none"}
    if "folds" in change:
        inputs["fold"] = [1, change["folds"]]
    with pytest.raises(BadInput, match=told):
        make_plan(FinetuneConfig(**change), inputs)


@pytest.mark.parametrize("change", [{"pool": "cls"}, {"positions": "resized"}])
def test_options_of_vits_are_not_for_pictures(tmp_path: Path, change: dict) -> None:
    with pytest.raises(BadInput, match="but this is vis-mae classification"):
        make_plan(FinetuneConfig(**change), {"dataset": str(write_pictures(tmp_path, {"training": 4}))})


@pytest.mark.parametrize("change", [{"folds": 1}, {"folds": 1000}, {"patience": 0}, {"patience": 2, "validations": 0},
                                    {"deep_supervision": -1}])
def test_numbers_that_mean_nothing_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        FinetuneConfig(**change)


def test_stems_of_any_kind_learn_most_slowly_and_patches_need_not_be_cubes() -> None:
    network = build_network({"name": "unetr", "arguments": {
        "channels": 1, "classes": 2, "patch": [2, 4, 4], "width": 12, "depth": 2, "heads": 2, "skip_blocks": [1],
        "feature_size": 2}})
    network.encoder.stem = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 4, 3))  # as hybrid networks have one
    depth = encoder_depths(network)
    depths = {name: depth(name) for name, _ in network.named_parameters()}
    assert {value for name, value in depths.items() if ".stem." in name or "patch_embed" in name} == {3}
    assert {value for name, value in depths.items() if ".blocks.0." in name and name.startswith("encoder")} == {2}
    assert {value for name, value in depths.items() if name.startswith("encoder.norm")} == {0}
    assert {value for name, value in depths.items() if not name.startswith("encoder.")} == {None}


def test_a_run_that_was_begun_before_an_option_existed_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = write_pictures(tmp_path, {"training": 4})
    config = to_json(FinetuneConfig(steps=1, batch_size=2, validations=0))
    for name in ("deep_supervision", "positions", "freeze_encoder", "folds"):
        del config[name]
    run = RunFolder.create(tmp_path / "run", "finetune", config,
                           {"dataset": str(dataset), "encoder": str(tiny_encoder(tmp_path / "encoder", "vis-mae"))})
    assert medmae_command(["finetune", "--resume", "--out", str(run.path), "--folds", "2"]) == 2
    assert "was started with folds=None (not 2)" in capsys.readouterr().err
    assert medmae_command(["finetune", "--resume", "--out", str(run.path)]) == 0
    assert (run.model / "model.json").is_file()


def test_an_ensemble_has_no_levels() -> None:
    member = {"name": "vit_classifier", "arguments": {"channels": 1, "classes": 2, "patch": 8, "width": 12, "depth": 1,
                                                      "heads": 2}}
    network = build_network({"name": "ensemble", "arguments": {"members": 2, "member": member, "channels": 1,
                                                               "classes": 2}})
    assert encoder_depths(network)("members.0.encoder.blocks.0.norm1.weight") is None
