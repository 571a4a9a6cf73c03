"""Pooling by places and standardised heads of GL-MAE's classification networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_finetuning_options import network_of, volumes_with_classes
from tiny_models import tiny_encoder
from torch import nn
from torch.nn import functional

from medmae.datasets import Corpus, CorpusWriter
from medmae.errors import BadInput
from medmae.finetuning.classification import ClassificationTask
from medmae.finetuning.config import AugmentationConfig, FinetuneConfig, resolve_finetune_config
from medmae.models import load_info, save_model
from medmae.networks import build_network
from medmae.networks.hybrid_classifier import HybridClassifier
from medmae.networks.presets import architecture_for
from medmae.networks.vit_classifier import VitClassifier

SIZES = {"channels": 1, "classes": 2, "patch": 4, "width": 48, "depth": 1, "heads": 2}


def classifier(**arguments: object) -> VitClassifier:
    torch.manual_seed(0)
    return VitClassifier(**(SIZES | arguments))  # type: ignore[arg-type]


def volumes_of_two_sides(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy volumes of 16 voxels a side with the same faint contrast, on one side or on the other."""
    draw = torch.Generator().manual_seed(seed)
    sides = torch.arange(count) % 2
    volumes = torch.randn(count, 1, 16, 16, 16, generator=draw) * 0.1 + 0.5
    volumes += torch.randn(count, 1, 1, 1, 1, generator=draw) * 0.1  # of the whole volume, as in MR
    for number, side in enumerate(sides):
        part = slice(8, 12) if side else slice(4, 8)
        volumes[number, :, 6:10, 6:10, part] += 0.15
    return volumes, sides


def accuracy_after_training(network: nn.Module, steps: int = 60) -> float:
    volumes, sides = volumes_of_two_sides(64, 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randperm(len(volumes), generator=draw)[:8]
        loss = functional.cross_entropy(network(volumes[batch]), sides[batch])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    network.eval()
    fresh, expected = volumes_of_two_sides(128, 1)
    with torch.no_grad():
        return float((network(fresh).argmax(1) == expected).float().mean())


def test_weights_of_places_learn_a_side_that_the_mean_of_tokens_does_not() -> None:
    assert accuracy_after_training(classifier()) < 0.7
    assert accuracy_after_training(classifier(pool="weighted", weight_grid=[4, 4, 4], standardise=True)) > 0.9


def test_equal_weights_are_the_mean_whatever_the_grid() -> None:
    network = classifier(pool="weighted", weight_grid=[2, 3, 2]).eval()
    assert network.standardise is not None  # always, where weighted
    nn.init.constant_(network.place_weights, 1 / 12)
    nn.init.normal_(network.head.weight)
    for size in ((8, 12, 8), (16, 10, 4)):
        volumes = torch.rand(2, 1, *size)
        tokens = network.encoder(functional.pad(volumes, (0, 0, 0, -size[1] % 4)))[1]
        torch.testing.assert_close(network(volumes), network.head(network.standardise(tokens.mean(1))))


@pytest.mark.parametrize("pool", ["mean", "cls", "weighted"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_head_sees_values_of_mean_0_and_deviation_1_and_begins_with_equal_classes(pool: str, head: str) -> None:
    networks = classifier(pool=pool, head=head, weight_grid=[4, 4, 4], standardise=True), HybridClassifier(
        channels=1, classes=2, stem_widths=(2, 4), width=12, depth=1, heads=2, pool=pool, head=head,  # type: ignore[arg-type]
        weight_grid=[4, 4, 4], standardise=True)
    for network in networks:
        seen: list[torch.Tensor] = []
        network.head.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
        logits = network(torch.rand(16, 1, 16, 16, 16))
        assert not logits.any()
        torch.testing.assert_close(seen[0].mean(0), torch.zeros_like(seen[0][0]), atol=1e-3, rtol=0)
        assert float(seen[0].detach().var(0, correction=0).median()) == pytest.approx(1, abs=0.05)
        logits.sum().backward()
        alone = network.eval()(torch.rand(1, 1, 16, 16, 16))  # the past's statistics: one volume is enough
        assert alone.shape == (1, 2)


def test_networks_of_before_have_the_tensors_they_had() -> None:
    assert {name for name in classifier().state_dict() if not name.startswith("encoder.")} == {
        "head.weight", "head.bias"}
    assert {name for name in classifier(pool="cls", head="mlp").state_dict() if not name.startswith("encoder.")} == {
        f"head.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}


def test_unknown_pooling_and_a_missing_grid_are_refused() -> None:
    for arguments in ({"pool": "max"}, {"pool": "weighted"}, {"pool": "weighted", "weight_grid": [4, 4]}):
        with pytest.raises(BadInput, match="weight_grid|pool must be"):
            build_network({"name": "vit_classifier", "arguments": SIZES | arguments})
    with pytest.raises(BadInput, match="weight_grid"):
        build_network({"name": "vit_classifier", "arguments": SIZES | {"pool": "weighted", "weight_grid": [4096] * 3}})


def test_the_tiny_presets_weigh_places_and_the_published_sizes_do_not() -> None:
    tiny = architecture_for("gl-mae", "tiny", "classification", 1, 2)["arguments"]
    assert (tiny["pool"], tiny["standardise"], tiny["weight_grid"]) == ("weighted", True, [6, 6, 6])
    assert architecture_for("gl-mae", "tiny-hybrid", "classification", 1, 2)["arguments"]["weight_grid"] == [4, 6, 4]
    assert "pool" not in architecture_for("gl-mae", "base", "classification", 1, 2)["arguments"]


def test_the_grid_of_the_weights_is_that_of_the_window(tmp_path: Path) -> None:
    dataset = volumes_with_classes(tmp_path)
    encoder = tiny_encoder(tmp_path / "encoder", "gl-mae")
    network, arguments = network_of(dataset, FinetuneConfig(input_size=(32, 48, 24)), encoder=encoder)
    assert arguments["weight_grid"] == [4, 6, 3] and network.place_weights.shape == (72, 24)
    plain, arguments = network_of(dataset, FinetuneConfig(pool="mean", standardise=False), encoder=encoder)
    assert arguments["pool"] == "mean" and plain.standardise is None


@pytest.mark.parametrize("arguments", [{}, {"pool": "cls"}, {"pool": "weighted", "weight_grid": [2, 2, 2]}])
def test_a_classifier_that_is_finetuned_further_pools_as_it_did(tmp_path: Path, arguments: dict) -> None:
    dataset = volumes_with_classes(tmp_path)
    architecture = {"name": "vit_classifier", "arguments": SIZES | arguments}
    info = replace(load_info(tiny_encoder(tmp_path / "encoder", "gl-mae")), task="classification",
                   architecture=architecture, labels=[{"name": "low", "value": 0}, {"name": "high", "value": 1}])
    folder = save_model(tmp_path / "model", info, build_network(architecture))
    found = network_of(dataset, encoder=folder)[1]
    assert {name: found.get(name) for name in ("pool", "weight_grid", "standardise")} == {
        name: arguments.get(name) for name in ("pool", "weight_grid", "standardise")}


def test_views_of_volumes_to_classify_are_turned_and_scaled_less() -> None:
    wanted = {"method": "gl-mae", "preset": "tiny", "pretrained": True}
    whole = resolve_finetune_config(FinetuneConfig(), task="classification", **wanted)  # type: ignore[arg-type]
    assert (whole.augmentation.rotation_degrees, whole.augmentation.scale) == (5.0, (0.95, 1.05))
    assert whole.layer_decay == 1.0
    crops = resolve_finetune_config(FinetuneConfig(), task="segmentation", **wanted)  # type: ignore[arg-type]
    assert (crops.augmentation.rotation_degrees, crops.augmentation.scale) == (15.0, (0.8, 1.25))
    asked = FinetuneConfig(augmentation=AugmentationConfig(rotation_degrees=0.0, scale=(1.0, 1.0)))
    kept = resolve_finetune_config(asked, task="classification", **wanted).augmentation  # type: ignore[arg-type]
    assert (kept.rotation_degrees, kept.scale) == (0.0, (1.0, 1.0))


def test_a_batch_of_one_is_refused_where_values_are_standardised(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path / "corpus", settings={}) as writer:
        writer.add("a", torch.rand(1, 16, 16, 16).numpy(), (1.0, 1.0, 1.0), "MR", {}, label=None, target=0, subject="s")
    network = classifier(standardise=True)
    with pytest.raises(BadInput, match="at least 2"):
        ClassificationTask(network, FinetuneConfig(batch_size=1), Corpus(tmp_path / "corpus"), None, (16, 16, 16),
                           ["a", "b"])
